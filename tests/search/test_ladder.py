"""The ladder of pruning: for which kernels, and from where each strength is cut."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from cnn_data import arrays
from search_fakes import VNNI, plan_for

from trimtab.core.dataset import Dataset
from trimtab.core.metric import find_limited, find_metric
from trimtab.core.target import Target
from trimtab.search.recipe import Recipe
from trimtab.search.result import Constraints
from trimtab.search.steps import pruning
from trimtab.search.steps.pruning import Ladder, for_int8, own_limit


def search_with(monkeypatch: pytest.MonkeyPatch, ratio: float | None, *, keeps: bool = True) -> Any:
    """Make a search whose static int8 has this speed-up."""
    known = None if ratio is None else SimpleNamespace(value=ratio)
    monkeypatch.setattr(pruning, "speedup", lambda result: known)
    return SimpleNamespace(named=lambda name: name, keeps=lambda result: keeps, measures=True)


def test_channels_are_chosen_for_int8_kernels_where_int8_pays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = for_int8(search_with(monkeypatch, 2.0), plan_for())
    assert plan.precision == "int8"
    rung = plan.rung(plan.pruned(0.85))
    assert rung.name == "pruned to 85% of int8, int8"
    names = [p.name() for p in rung.passes]
    assert names == ["simplify", "prune-channels", "quantize-static", "apply-rewrites"]
    assert rung.passes[1].to_json()["precision"] == "int8"


@pytest.mark.parametrize(
    ("ratio", "keeps", "target", "timed"),
    [
        (1.05, True, VNNI, True),
        (None, True, VNNI, True),
        (2.0, False, VNNI, True),
        (2.0, True, Target.named("tensorrt"), True),
        (2.0, True, VNNI, False),
    ],
    ids=["no faster", "not measured", "loses too much", "gpu", "no clock"],
)
def test_else_they_are_chosen_for_float_kernels(
    monkeypatch: pytest.MonkeyPatch, ratio: float | None, keeps: Any, target: Target, timed: Any
) -> None:
    plan = for_int8(
        search_with(monkeypatch, ratio, keeps=keeps), plan_for(target, timed=bool(timed))
    )
    assert plan.precision == "float"
    assert plan.rung(plan.pruned(0.7)).name == "pruned to 70%"


def test_each_strength_is_cut_out_of_the_one_before() -> None:
    plan = plan_for()
    first = plan.quantized(plan.pruned(0.85))
    base = plan.float_part(first)
    assert [p.name() for p in base.passes] == ["simplify", "prune-channels"]
    second = plan.pruned(0.7, base, 0.8)
    shares = [p.to_json()["latency"] for p in second.passes if p.name() == "prune-channels"]
    assert shares == [0.85, 0.875]
    assert second.name == "pruned to 70%"


def test_a_strength_that_the_last_step_reached_is_skipped() -> None:
    ladder = Ladder(SimpleNamespace(), plan_for(), Recipe("float", ()), measured=0.56)  # type: ignore[arg-type]
    assert ladder.pruned(0.55) is None
    assert ladder.pruned(0.4) is not None


def test_after_a_step_that_went_too_far_half_of_it_is_tried() -> None:
    ladder = Ladder(SimpleNamespace(), plan_for(), Recipe("float", ()), measured=0.86)  # type: ignore[arg-type]
    assert ladder.between(0.7) == 0.78
    # A coarse network: what was reached lies below what failed from further up.
    ladder.measured = 0.8
    assert ladder.between(0.85) == 0.74
    ladder.measured = 0.84
    assert ladder.between(0.77) == 0.805


@pytest.mark.parametrize("labelled", [True, False])
def test_passes_evaluate_themselves_by_the_metric_where_there_are_labels(labelled: Any) -> None:
    made = arrays(40)
    data = Dataset.of_arrays({"x": made["x"]}, made["labels"] if labelled else None)
    labels = Dataset.of_arrays({"x": made["x"]}, made["labels"])
    metric = find_metric("top1", labels)
    evaluator = SimpleNamespace(metric=metric, splits=SimpleNamespace(calibration=data))
    search: Any = SimpleNamespace(evaluator=evaluator, constraints=Constraints(max_drop=0.02))
    assert own_limit(search) == (0.02, "top1" if labelled else "")
    both, _ = find_limited({"top1": 0.02, "cosine": 0.1}, None, labels)
    evaluator.metric = both
    assert own_limit(search)[0] == ({"top1": 0.02} if labelled else {}) | {"cosine": 0.1}


def lossy(groups: list[dict[str, Any]], drop: float) -> tuple[Any, Any]:
    """Make a search, and a pruned candidate in it that loses that much."""
    step = SimpleNamespace(pass_name="prune-channels", notes={"groups": groups})
    found = SimpleNamespace(failure=None, model=SimpleNamespace(lineage=[step]))
    limits = SimpleNamespace(max_drop=0.01)
    return SimpleNamespace(constraints=limits, drop=lambda result: drop), found


def test_a_step_that_is_far_off_is_tried_once_more_with_another_cut() -> None:
    groups = [{"name": f"conv{i}", "channels": [64, left]} for i, left in enumerate([60, 8, 48])]
    search, found = lossy(groups, 0.44)
    assert pruning._is_bad_draw(search, found)
    assert pruning.most_cut(found) == ("conv1",)
    again = plan_for().pruned(0.93, protect=("conv[1]",))
    assert again.name == "pruned to 93% by another cut"
    (step,) = [p for p in again.passes if p.name() == "prune-channels"]
    assert step.to_json()["protect"] == ["conv[[]1]"]
    assert not pruning._is_bad_draw(*lossy(groups, 0.02))
