"""Training within the search: what it adds, and that its recipes make the same bytes again."""

from __future__ import annotations

from pathlib import Path

import graphs
import numpy as np
import pytest
from cnn_data import arrays
from search_fakes import LOOSE, fast_int8

from trimtab.core.context import Context
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.passes import find
from trimtab.recipe import Recipe
from trimtab.search import optimize, save_outcome


@pytest.mark.slow
def test_a_trained_model_is_made_again_bit_for_bit(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **arrays(120))
    path = graphs.cnn().save(tmp_path / "float.onnx")
    outcome = optimize(
        str(path),
        str(tmp_path / "data.npz"),
        constraints=LOOSE,
        measure=fast_int8,
        passes=["simplify", "quantize-static", "recover"],
        train="8s",
    )
    trained = [r for r in outcome.results if r.name.endswith("trained through int8")]
    assert len(trained) == 1
    assert trained[0].failure is None
    step = trained[0].recipe.passes[-1]  # type: ignore[union-attr]
    assert step.to_json()["steps"] >= 1
    assert "time" not in step.to_json()
    save_outcome(outcome, tmp_path / "out")
    recipe = Recipe.from_json(trained[0].recipe.to_json())  # type: ignore[union-attr]
    again = recipe(Model.load(path))
    assert trained[0].model is not None
    assert again.to_bytes() == trained[0].model.to_bytes()


def test_only_strengths_that_cost_too_much_are_trained() -> None:
    from trimtab.searching.training import strengths

    assert strengths([0.925]) == (0.85, 0.7, 0.55, 0.4, 0.3)
    assert strengths([0.85, 0.7, 0.625]) == (0.55, 0.4, 0.3)
    assert strengths([0.85, 0.7, 0.55, 0.4, 0.3]) == (0.3,)


def test_what_is_settled_keeps_data_in_memory(tmp_path: Path) -> None:
    from trimtab.core.dataset import Dataset
    from trimtab.searching.maker import _changed

    made = arrays(60)
    data = Dataset.of_arrays({"x": made["x"]}, made["labels"])
    step = find("recover").from_json({"time": "9s", "data": data, "batch": 8})
    settled = step.with_fields(time=None, steps=7).to_json()
    changed = _changed(step, settled)
    assert (changed.time, changed.steps, changed.batch) == (None, 7, 8)  # type: ignore[attr-defined]
    assert changed.data is data  # type: ignore[attr-defined]


def test_a_time_is_settled_as_a_number_of_steps() -> None:
    from trimtab.core.dataset import Dataset

    made = arrays(60)
    data = Dataset.of_arrays({"x": made["x"]}, made["labels"])
    model = graphs.cnn()
    recover = find("recover").from_json({"time": "1s", "data": data, "threads": 1})
    assert recover.decides_by_time()
    settled = recover.settled(model, Context())
    assert not settled.decides_by_time()
    assert settled.to_json()["steps"] >= 1


def test_the_original_as_teacher_belongs_into_a_recipe() -> None:
    from trimtab.core.dataset import Dataset

    made = arrays(40)
    data = Dataset.of_arrays({"x": made["x"]}, made["labels"])
    step = find("recover").from_json({"teacher": "original", "steps": 1, "data": data})
    with pytest.raises(OptionError, match="outside of a recipe"):
        step(graphs.cnn())
    assert Recipe("trained", (step,))(graphs.cnn()).lineage[-1].pass_name == "recover"


def test_a_stutter_in_the_first_probe_makes_no_step_free(monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.passes import recover

    few, many = recover.PROBES
    taken = iter([9.0, 5.0, 4.9])  # warm-up with imports; then few steps took longer than many
    how = recover.Recover(time="60s")
    monkeypatch.setattr(recover.Recover, "_timed", lambda *_: next(taken))
    settled = how.settled(graphs.cnn(), Context())
    assert settled.steps is not None
    assert settled.steps <= 4 * 60 / (4.9 / many)
    assert few < many


@pytest.mark.slow
def test_a_short_run_that_finds_nothing_better_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab.passes.torch_graph import optimizer

    monkeypatch.setitem(optimizer._RATES, "adamw", 1e-12)
    np.savez(tmp_path / "data.npz", **arrays(120))
    outcome = optimize(
        graphs.cnn(),
        str(tmp_path / "data.npz"),
        constraints=LOOSE,
        measure=fast_int8,
        passes=["simplify", "prune-channels", "recover"],
        train="2s",
    )
    told = [d["what"] for d in outcome.decisions if d["stage"] == "train"]
    assert any("is the same model as an earlier candidate" in line for line in told)
    assert any("reach of" in line for line in told)
