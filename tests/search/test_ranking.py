"""Ranking of candidates, on made results: every rule of the choice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from trimtab.core.context import Ratio
from trimtab.core.metric import Quality
from trimtab.search.ranking import explain, objections, preference, tied
from trimtab.search.result import Constraints, Result


def quality(value: float) -> Quality:
    return Quality("top1", value, np.array([value]), 1)


def candidate(
    name: str,
    ratio: tuple[float, float, float] = (2.0, 1.9, 2.1),
    *,
    value: float = 0.9,
    size: int = 100,
    p95_ns: float | None = 1e6,
    failure: str | None = None,
) -> Result:
    def percentile_ns(quantile: float) -> float | None:
        assert quantile == 0.95
        return p95_ns

    comparison: Any = SimpleNamespace(
        ratio=ratio[0],
        low=ratio[1],
        high=ratio[2],
        verdict="better" if ratio[1] > 1 else "worse" if ratio[2] < 1 else "same",
        candidate=SimpleNamespace(percentile_ns=percentile_ns),
        devices={},
    )
    return Result(
        name,
        size_bytes=size,
        selection=quality(value),
        test=quality(value),
        comparison=comparison,
        failure=failure,
    )


ORIGINAL = Result("original", selection=quality(0.9), test=quality(0.9), size_bytes=400)


def names(results: list[Result]) -> list[str]:
    return [r.name for r in results]


def test_the_fastest_comes_first() -> None:
    slow, fast = candidate("slow", (1.5, 1.4, 1.6)), candidate("fast", (2.5, 2.4, 2.6))
    assert names(preference([slow, fast])) == ["fast", "slow"]


def test_a_tie_goes_to_the_smaller_file() -> None:
    big = candidate("big", (2.05, 1.9, 2.2), size=200)
    small = candidate("small", (2.0, 1.9, 2.1), size=100)
    ranked = preference([big, small])
    assert names(ranked) == ["small", "big"]
    assert "big cannot be distinguished from it in time" in " ".join(explain(small, ranked, ()))


def test_of_equally_fast_and_small_ones_the_most_accurate_wins() -> None:
    rough = candidate("rough", (2.05, 1.9, 2.2), size=100, value=0.895)
    exact = candidate("exact", (2.0, 1.9, 2.1), size=101, value=0.899)
    assert names(preference([rough, exact])) == ["exact", "rough"]


def test_a_candidate_that_is_not_faster_beyond_its_interval_is_not_a_success() -> None:
    same, slower = candidate("same", (1.02, 0.97, 1.07)), candidate("slower", (0.8, 0.7, 0.9))
    float_model = candidate("float", (1.0, 0.95, 1.05))
    assert names(preference([same, slower, float_model], [float_model])) == ["float"]
    assert "Nothing beats" in " ".join(explain(float_model, [float_model], [float_model]))


def test_a_drop_beyond_the_limit_objects() -> None:
    bad = candidate("bad", value=0.88)
    assert "loses 0.0200" in objections(bad, ORIGINAL, Constraints(max_drop=0.01))[0]
    assert objections(bad, ORIGINAL, Constraints(max_drop=0.03)) == []


def test_a_speed_up_must_be_proved_by_its_lower_end() -> None:
    almost = candidate("almost", (2.05, 1.95, 2.15))
    assert objections(almost, ORIGINAL, Constraints(min_speedup=2.0))
    assert not objections(almost, ORIGINAL, Constraints(min_speedup=1.9))


def test_latency_and_size_limits_object() -> None:
    one = candidate("one", p95_ns=6e6, size=500)
    found = objections(one, ORIGINAL, Constraints(max_latency_ns=5e6, max_size=400))
    assert [f.split()[0] for f in found] == ["500", "p95"]


def test_a_percentile_that_is_not_known_objects() -> None:
    one = candidate("one", p95_ns=None)
    assert "not known" in objections(one, ORIGINAL, Constraints(max_latency_ns=5e6))[0]


def test_a_failure_is_its_own_objection() -> None:
    assert objections(candidate("x", failure="refused"), ORIGINAL, Constraints()) == ["refused"]


def test_ties_are_symmetric() -> None:
    a, b = Ratio(2.0, 1.9, 2.1), Ratio(2.05, 2.02, 2.08)
    assert tied(a, b)
    assert tied(b, a)
    assert not tied(Ratio(2.0, 1.95, 2.05), Ratio(2.2, 2.15, 2.25))


def test_what_was_stopped_before_its_first_block_is_not_shown_as_a_number():
    assert str(Ratio(float("nan"), 0.0, float("inf"))) == "not measured"
    assert str(Ratio(2.0, 1.9, 2.1)) == "2.00x [1.90, 2.10]"
