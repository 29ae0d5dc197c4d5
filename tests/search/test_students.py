"""Students of a teacher: pruned from it, from modules, in steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
from finetune_cases import Interrupting, context, images, notes, weights

from trimtab.cli import main
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.passes import Finetune
from trimtab.students import Student, distill_in_steps

SHORT = {"epochs": 2, "batch": 16, "learning_rate": 5e-3}


def macs(model: Model) -> list[Any]:
    return [s.notes["macs"] for s in model.lineage if s.pass_name == "prune-channels"]


@pytest.mark.slow
def test_students_of_falling_size_each_learn_from_the_one_before() -> None:
    teacher = graphs.cnn()
    students = [Student("pruned:.8"), Student("pruned:0.5")]
    progress = Interrupting(after=10**9)
    _, after = distill_in_steps(teacher, students, Finetune(**SHORT), context(progress=progress))
    (first, middle), (start, last) = macs(after)
    assert middle == start
    assert last < middle < first
    assert [s.pass_name for s in after.lineage] == ["prune-channels", "finetune"] * 2
    assert "student 2 of 2: pruned:0.5" in progress.said


def test_only_a_module_without_weights_starts_at_random() -> None:
    assert Student("package.net:Small").random
    assert not Student("package.net:Small", "weights.pt").random
    assert not Student("pruned:0.5").random


@pytest.mark.slow
def test_a_random_start_is_the_same_for_the_same_seed_and_trains_its_norms() -> None:
    student = Student("trimtab.models.digits:digits_cnn")
    one, two = (student.open(graphs.cnn(), 1.0, context()) for _ in range(2))
    assert one.digest == two.digest
    assert "BatchNormalization" in graphs.ops(one)


@pytest.mark.parametrize("spec", ["pruned:2", "pruned:0", "pruned:half", "pruned:"])
def test_an_invalid_share_is_refused(spec: str) -> None:
    with pytest.raises(OptionError, match=r"pruned:0\.5"):
        distill_in_steps(
            graphs.cnn(), [Student("pruned:0.9"), Student(spec)], Finetune(), context()
        )


def test_students_that_do_not_fall_in_size_are_refused() -> None:
    students = [Student("pruned:0.6"), Student("pruned:0.7")]
    with pytest.raises(OptionError, match="falling size"):
        distill_in_steps(graphs.cnn(), students, Finetune(steps=1), context())


@pytest.mark.slow
def test_an_interruption_on_the_way_goes_on_from_there(tmp_path: Path) -> None:
    students = [Student("pruned:0.8"), Student("pruned:0.5")]
    how = Finetune(checkpoint=str(tmp_path / "state"), **SHORT)
    _, whole = distill_in_steps(graphs.cnn(), students, how.with_fields(checkpoint=None), context())
    with pytest.raises(KeyboardInterrupt):
        distill_in_steps(graphs.cnn(), students, how, context(progress=Interrupting(after=8)))
    assert [p.name for p in tmp_path.iterdir()] == ["state.1"]
    _, after = distill_in_steps(graphs.cnn(), students, how.with_fields(resume=True), context())
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(weights(after)[name], array)


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    graphs.cnn().save(tmp_path / "teacher.onnx")
    data, out = str(tmp_path / "data.npz"), tmp_path / "out.onnx"
    np.savez(data, **dict(next(iter(images(64).sized(64))).feeds))
    args = ["distill", "--teacher", str(tmp_path / "teacher.onnx"), "--data", data, "-o", str(out)]
    args += ["--student", "pruned:0.5", "--through", "pruned:0.8", "--epochs", "2", "--batch", "16"]
    assert main(args) == 0
    assert notes(Model.load(out))["steps"] == 6
    assert main([*args[:-6], "--student", "pruned:3"]) == 2
