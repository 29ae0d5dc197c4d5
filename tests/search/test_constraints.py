"""Constraints, goals, and the messages where no candidate satisfies them."""

from __future__ import annotations

import math

import pytest

from trimtab.core.errors import OptionError
from trimtab.core.metric import Quality
from trimtab.search.ranking import nearest_candidates, preference, violations
from trimtab.search.result import Constraints, Result, frontier
from trimtab.search.time_budget import TimeBudget


def result(name: str, value: float = 0.9, **fields: float) -> Result:
    quality = Quality("top1", value, None, 100)
    fields = {"predicted": 1.5, "size_bytes": 100, "macs": 100} | fields
    return Result(name, model=object(), selection=quality, test=quality, **fields)  # type: ignore[arg-type]


ORIGINAL = result("original", predicted=1.0, size_bytes=400)


def test_a_mapping_reads_like_the_command_line() -> None:
    options = {"max_drop": "0.02", "max_size": "4MB", "max_latency": "p99=5ms", "goal": "size"}
    constraints = Constraints.of(options)
    assert (constraints.max_drop, constraints.max_size, constraints.goal) == (
        0.02,
        4_000_000,
        "size",
    )
    assert (constraints.percentile, constraints.max_latency_ns) == (99, 5e6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_dorp": 0.1}, "Did you mean 'max_drop'"),
        ({"goal": "sise"}, "Did you mean 'size'"),
        ({"max_drop": -0.1}, "must be 0 or more"),
        ({"max_drop": math.nan}, "nan is not a number"),
        ({"min_speedup": 0}, "must be above 0"),
        ({"max_size": "lots"}, "is not a size"),
        ({"batch": 8}, "are of the goal throughput"),
        ({"goal": "throughput", "callers": 0}, "callers is 0, must be above 0"),
        ({"goal": "throughput", "max_latency": "p95=5ms"}, "under load has no latency"),
    ],
)
def test_invalid_constraints_are_refused(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Constraints.of(options)


def test_training_that_does_not_fit_into_the_time_is_refused() -> None:
    with pytest.raises(OptionError, match="does not fit"):
        TimeBudget(seconds=600, train_seconds=1200)
    with pytest.raises(OptionError, match="trials"):
        TimeBudget(trials=0)


def test_each_violated_constraint_is_reported_with_its_excess() -> None:
    constraints = Constraints(max_drop=0.01, min_speedup=3.0, max_size=50, max_rss=10)
    found = {o.constraint: o.excess for o in violations(result("x", 0.87), ORIGINAL, constraints)}
    assert found["max_drop"] == pytest.approx(2.0)
    assert found["min_speedup"] == pytest.approx(1.0)
    assert found["max_size"] == pytest.approx(1.0)
    assert found["max_rss"] == math.inf  # not measured


def test_the_nearest_break_their_worst_constraint_by_the_least() -> None:
    constraints = Constraints(max_drop=0.01, max_size=80)
    far, near = result("far", size_bytes=300), result("near", 0.888)
    fine = result("fine", size_bytes=70)
    nearest = nearest_candidates([far, fine, near], ORIGINAL, constraints)
    assert [r.name for r, _ in nearest] == ["near", "far"]
    assert nearest[0][1][0].constraint == "max_size"


@pytest.mark.parametrize(
    ("goal", "best"), [("size", "small"), ("macs", "thin"), ("latency", "fast")]
)
def test_the_goal_decides(goal: str, best: str) -> None:
    candidates = [
        result("small", size_bytes=10),
        result("thin", macs=10),
        result("fast", predicted=4.0),
    ]
    constraints = Constraints.of({"goal": goal})
    assert preference(candidates, (), constraints.goal)[0].name == best


def test_a_tie_of_sizes_goes_to_the_faster() -> None:
    slow, fast = result("slow", size_bytes=100), result("fast", size_bytes=100, predicted=2.0)
    assert [r.name for r in preference([slow, fast], (), "size")] == ["fast", "slow"]


def test_the_frontier_contains_those_that_none_beats_in_both() -> None:
    found = frontier(
        [
            result("slow and good", 0.95, predicted=1.0),
            result("fast and bad", 0.80, predicted=4.0),
            result("beaten", 0.79, predicted=2.0),
            result("between", 0.90, predicted=2.0),
            result("twin of between", 0.90, predicted=2.0),
        ],
        "latency",
    )
    assert [r.name for r in found] == ["fast and bad", "between", "slow and good"]


@pytest.mark.parametrize("written", ["1.5", "1.5x", 1.5])
def test_a_speed_up_is_read_as_it_is_written_everywhere(written: str | float) -> None:
    assert Constraints.of({"min_speedup": written}).min_speedup == 1.5
