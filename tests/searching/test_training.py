"""Training within the search: what it adds, and that its recipes make the same bytes again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import graphs
import numpy as np
import pytest
from cnn_data import arrays
from search_fakes import LOOSE, fast_int8, plan_for

from trimtab.core.context import Context
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.passes import find
from trimtab.recipe import Recipe
from trimtab.result import Result
from trimtab.search import optimize, save_outcome
from trimtab.searching.pruning import Ladder
from trimtab.searching.training import train


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
def test_a_run_that_finds_nothing_better_is_no_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.plan.LEARNING_RATE", 1e-12)
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
    assert not any(r.name.endswith("trained, trained") for r in outcome.results)


class Turns:
    """A search in which a model loses by its time, and a slice of training gives a part back.

    Attributes:
        lost: by a share of the time, untrained.
        back: share of a drop that one slice leaves.
    """

    def __init__(self, lost: dict[float, float], back: float) -> None:
        self.lost, self.back = lost, back
        self.names: list[str] = []
        self.log = SimpleNamespace(note=lambda *rest, **more: None)
        self.results: list[Result] = []
        self.constraints = SimpleNamespace(max_drop=0.01)
        self.spent = SimpleNamespace(
            over="", effort=SimpleNamespace(train_seconds=60.0, training_threads=1)
        )

    def attempt(self, stage: str, recipes: Sequence[Recipe]) -> list[Result]:
        self.names += [recipe.name for recipe in recipes]
        return [Result(recipe.name, recipe) for recipe in recipes]

    def drop(self, result: Result) -> float:
        share = float(result.name.split("to ")[1].split("%")[0]) / 100
        slices = result.name.count("trained")
        return self.lost.get(share, 0.0) * self.back**slices

    def keeps(self, result: Result) -> bool:
        return self.drop(result) <= self.constraints.max_drop

    def named(self, name: str) -> None:
        return None


class Known(Ladder):
    """A ladder whose strengths take the time that they were asked for."""

    def go_on_from(self, recipe: Recipe, share: float) -> None:
        self.kept.append(share)
        self.base, self.reached = recipe, share


def in_turns(lost: dict[float, float], back: float) -> tuple[list[float], list[str]]:
    search: Any = Turns(lost, back)
    plan = plan_for()
    ladder = Known(search, plan, Recipe("float", plan.start()))
    train(search, plan, ladder)
    return ladder.kept, search.names


def test_each_slice_cuts_a_step_further_while_the_quality_comes_back() -> None:
    kept, names = in_turns({}, 0.5)
    assert kept == [0.88, 0.774, 0.681, 0.599, 0.527, 0.464]
    assert [n for n in names if n.endswith("trained")] == [
        f"pruned to {share}%, trained" for share in (88, 77, 68, 60, 53, 46)
    ]


def test_a_drop_within_reach_is_trained_on() -> None:
    kept, names = in_turns({0.77: 0.06, 0.68: 0.08}, 0.5)
    assert kept == [0.88, 0.774]  # 0.03, 0.015, 0.0075; then 0.04 and 0.02 when the time is up
    assert "pruned to 77%, trained, trained, trained" in names
    assert names[-1] == "pruned to 68%, trained, trained"


def test_after_a_step_and_half_of_it_that_went_too_far_the_rest_trains_through_int8() -> None:
    kept, names = in_turns({0.77: 0.5, 0.83: 0.5}, 0.9)
    assert kept == [0.88]
    assert names[-1] == "pruned to 88%, trained, int8, trained through int8"
