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
from search_fakes import LOOSE, VNNI, fast_int8, plan_for

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.passes import Finetune, find
from trimtab.search.optimize import optimize, save_outcome
from trimtab.search.recipe import Recipe
from trimtab.search.result import Result
from trimtab.search.steps.plan import SearchPlan
from trimtab.search.steps.pruning import Ladder
from trimtab.search.steps.training import train


@pytest.fixture
def steps_take_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of training counts as a third of a second, whatever this machine takes for it."""
    monkeypatch.setattr(Finetune, "_timed", lambda self, model, ctx, steps: steps / 3)


@pytest.mark.slow
@pytest.mark.usefixtures("steps_take_time")
def test_a_trained_model_is_made_again_bit_for_bit(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **arrays(120))
    path = graphs.cnn().save(tmp_path / "float.onnx")
    outcome = optimize(
        str(path),
        str(tmp_path / "data.npz"),
        constraints=LOOSE,
        measure=fast_int8,
        passes=["simplify", "quantize-static", "finetune"],
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
    from trimtab.search.builder import _changed

    made = arrays(60)
    data = Dataset.of_arrays({"x": made["x"]}, made["labels"])
    step = find("finetune").from_json({"time": "9s", "data": data, "batch": 8})
    resolved = step.with_fields(time=None, steps=7).to_json()
    changed = _changed(step, resolved)
    assert (changed.time, changed.steps, changed.batch) == (None, 7, 8)  # type: ignore[attr-defined]
    assert changed.data is data  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_time_is_settled_as_a_number_of_steps() -> None:
    made = arrays(60)
    data = Dataset.of_arrays({"x": made["x"]}, made["labels"])
    model = graphs.cnn()
    finetune = find("finetune").from_json({"time": "1s", "data": data, "threads": 1})
    assert finetune.decides_by_time()
    resolved = finetune.resolved(model, Context())
    assert not resolved.decides_by_time()
    assert resolved.to_json()["steps"] >= 1


def test_the_original_as_teacher_belongs_into_a_recipe() -> None:
    made = arrays(40)
    data = Dataset.of_arrays({"x": made["x"]}, made["labels"])
    step = find("finetune").from_json({"teacher": "original", "steps": 1, "data": data})
    with pytest.raises(OptionError, match="outside of a recipe"):
        step(graphs.cnn())
    assert Recipe("trained", (step,))(graphs.cnn()).lineage[-1].pass_name == "finetune"


def test_a_stutter_in_the_first_probe_makes_no_step_free(monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.passes.training import finetune

    few, many = finetune.PROBES
    taken = iter([9.0, 5.0, 4.9])  # warm-up with imports; then few steps took longer than many
    how = finetune.Finetune(time="60s")
    monkeypatch.setattr(finetune.Finetune, "_timed", lambda *_: next(taken))
    resolved = how.resolved(graphs.cnn(), Context())
    assert resolved.steps is not None
    assert resolved.steps <= 4 * 60 / (4.9 / many)
    assert few < many


@pytest.mark.slow
@pytest.mark.usefixtures("steps_take_time")
def test_a_run_that_finds_nothing_better_gives_no_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.search.steps.plan.LEARNING_RATE", 1e-12)
    np.savez(tmp_path / "data.npz", **arrays(120))
    outcome = optimize(
        graphs.cnn(),
        str(tmp_path / "data.npz"),
        constraints=LOOSE,
        measure=fast_int8,
        passes=["simplify", "prune-channels", "finetune"],
        train="2s",
    )
    reported = [d["what"] for d in outcome.decisions if d["stage"] == "train"]
    assert any("is the same model as an earlier candidate" in line for line in reported)
    assert not any(r.name.endswith("trained, trained") for r in outcome.results)


class Turns:
    """Make a search in which a model loses by its time, and a slice of training wins a part back.

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
            over="", budget=SimpleNamespace(train_seconds=60.0, training_threads=1)
        )

    def attempt(self, stage: str, recipes: Sequence[Recipe]) -> list[Result]:
        self.names += [recipe.name for recipe in recipes]
        return [Result(recipe.name, recipe) for recipe in recipes]

    def drop(self, result: Result) -> float:
        share = float(result.name.split("to ")[1].split("%")[0]) / 100
        assert result.recipe is not None
        times = [p.seconds() for p in result.recipe.passes if isinstance(p, Finetune)]
        return self.lost.get(share, 0.0) * self.back ** (sum(filter(None, times)) / 10)

    def keeps(self, result: Result) -> bool:
        return self.drop(result) <= self.constraints.max_drop

    def named(self, name: str) -> None:
        return None


class Known(Ladder):
    """A ladder whose strengths take the time that they were asked for."""

    def go_on_from(self, recipe: Recipe, share: float) -> None:
        self.kept.append(share)
        self.base, self.measured = recipe, share


def in_turns(lost: dict[float, float], back: float) -> tuple[list[float], list[str]]:
    search: Any = Turns(lost, back)
    plan = plan_for()
    ladder = Known(search, plan, Recipe("float", plan.start()))
    train(search, plan, ladder)
    return ladder.kept, search.names


def test_half_of_the_slices_cut_a_step_further_each_and_the_rest_trains_the_last() -> None:
    kept, names = in_turns({}, 0.5)
    assert kept == [0.85, 0.637, 0.478]  # all of the drop may be used up at first, then none is
    assert [n for n in names if n.endswith("trained")] == [
        *(f"pruned to {share}%, trained" for share in (85, 64, 48)),
        "pruned to 48%, trained, trained",
    ]
    assert names[-1] == "pruned to 48%, trained, trained, int8"


def test_a_step_is_smaller_where_more_is_lost() -> None:
    kept, names = in_turns({0.85: 0.04, 0.81: 0.08}, 0.5)
    assert kept == [0.85, 0.807, 0.767]  # 0.02 was lost both times, of 0.025 in reach
    assert "pruned to 85%, trained, int8" not in names
    assert "pruned to 81%, trained, int8" not in names
    assert "pruned to 77%, trained, int8" in names


def test_half_a_step_is_tried_where_a_step_went_too_far() -> None:
    kept, names = in_turns({0.85: 0.5}, 0.5)
    assert kept == [0.925, 0.809]
    assert names[-2:] == [
        "pruned to 81%, trained, trained",
        "pruned to 81%, trained, trained, int8",
    ]


def test_where_no_step_is_within_reach_the_rest_trains_through_int8() -> None:
    kept, names = in_turns(dict.fromkeys((0.85, 0.93, 0.92, 0.96), 0.5), 0.9)
    assert kept == []
    assert names[-1] == "float, int8, trained through int8"


@pytest.mark.parametrize(
    ("rows", "batch", "labels", "expected"),
    [
        (10_000, "n", True, ("restored", ("kd", "ce"))),
        (10_000, "n", False, ("restored", ())),
        (9_999, "n", True, ("frozen", ())),
        (10_000, "4", True, ("frozen", ())),  # too few rows for statistics of their own
    ],
)
def test_much_data_trains_with_norms_put_back(
    rows: int, batch: str, labels: bool, expected: tuple[str, tuple[str, ...]]
) -> None:
    data = Dataset.of_arrays(
        {"x": np.zeros((rows, 1, 1, 1), np.float32)}, np.zeros(rows, np.int64) if labels else None
    )
    model = graphs.model_of(
        f"(float[{batch},1,1,1] x) => (float[{batch},1] y) <float[1,1,1,1] w> "
        "{ c = Conv (x, w)  y = Flatten (c) }"
    )
    plan = SearchPlan.of(model, data, VNNI, None, timed=True)
    (step,) = plan.middle(plan.finetuned(Recipe("float", plan.start()), 60, 1))
    assert isinstance(step, Finetune)
    assert (step.batch_norm, step.loss) == expected
