"""Confirmation: what is proved is taken, what is refuted is out, what stays open beats float."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import graphs
import numpy as np
import pytest
from cnn_data import arrays
from made_comparisons import made_comparison
from search_fakes import LOOSE, fast_int8

from trimtab.core.metric import Quality
from trimtab.core.model import Model
from trimtab.search.confirmation import fresh_run
from trimtab.search.confirmation.confirm import Confirmation
from trimtab.search.optimize import optimize
from trimtab.search.reporting.outcome import Outcome
from trimtab.search.reporting.summary import outcome_lines
from trimtab.search.result import Result
from trimtab.search.standing import speed_standing
from trimtab.search.time_budget import TimeBudget

Interval = tuple[float, float, float]
OPEN: Interval = (1.39, 0.42, 2.58)
#: Stage that the log names as soon as candidates are ranked.
CONFIRMING = "confirm"
NOTHING: Interval = (2.27, 0.0, float("inf"))


def compared(interval: Interval, verdict: str | None = None) -> Any:
    ratio, low, high = interval
    sure = "better" if low > 1 else "worse" if high < 1 else "inconclusive"
    made = made_comparison(ratio)
    return SimpleNamespace(**made.__dict__ | {"low": low, "high": high, "verdict": verdict or sure})


def search(fresh: Sequence[Interval], before: Interval | None = None, **options: Any) -> Outcome:
    """Search with float and int8, whose fresh runs give these intervals, the last for all others.

    The log tells the confirmation from the search.
    """
    later, decided = list(fresh), list[str]()

    def measure(base: Model, candidates: Sequence[Model], *rest: Any) -> Sequence[Any]:
        found = list(fast_int8(base, candidates))
        for index, model in enumerate(candidates):
            if model.name == "int8 static" and CONFIRMING in decided:
                found[index] = compared(later.pop(0) if len(later) > 1 else later[0])
            elif model.name == "int8 static" and before is not None:
                found[index] = compared(before)
        return found

    def watch(entry: Any, results: Any) -> None:
        decided.append(entry["stage"])

    options = {"constraints": LOOSE, "passes": ("simplify", "quantize-static")} | options
    return optimize(graphs.cnn(), arrays(120), measure=measure, watch=watch, **options)


def name_of(outcome: Outcome) -> str:
    return outcome.chosen.name if outcome.chosen else "nothing"


@pytest.mark.slow
def test_what_was_proved_once_and_is_contradicted_by_nothing_beats_float() -> None:
    outcome = search([OPEN])
    assert name_of(outcome) == "int8 static"
    assert outcome.chosen is not None
    assert outcome.chosen.standing == "open"
    assert "is faster in the search (1.84x" in outcome.why[-1]
    assert "not settled in the confirmation (1.39x [0.42, 2.58])" in outcome.why[-1]
    assert "not settled in the confirmation" in outcome.advice
    assert "not settled" in "\n".join(outcome_lines(outcome))


@pytest.mark.slow
def test_a_fresh_run_that_refutes_it_gives_float() -> None:
    outcome = search([(0.9, 0.85, 0.95)])
    assert name_of(outcome) == "float simplified"
    assert "not faster" in " ".join(outcome.why)
    assert "Nothing beats the float original" in outcome.why[-1]


def test_a_fresh_run_goes_on_until_the_verdict_stands() -> None:
    outcome = search([OPEN, OPEN, (1.5, 1.3, 1.7)])
    assert outcome.chosen is not None
    assert (name_of(outcome), outcome.chosen.standing) == ("int8 static", "proved")
    assert sum("is open" in d["what"] for d in outcome.decisions) == 2
    assert "1.50x [1.30, 1.70] as fast" in outcome.why[-1]


@pytest.mark.slow
def test_what_only_looked_faster_is_given_a_fresh_run_too() -> None:
    doubtful = (1.5, 0.9, 2.4)
    assert name_of(search([doubtful, doubtful, (1.4, 1.2, 1.6)], doubtful)) == "int8 static"
    likely = search([doubtful], doubtful)
    assert name_of(likely) == "int8 static"
    assert "not settled" in likely.why[-1]
    assert name_of(search([(1.0, 0.6, 1.7)], doubtful)) == "float simplified"


@pytest.mark.slow
def test_an_interval_without_ends_decides_nothing() -> None:
    outcome = search([NOTHING], NOTHING)
    assert name_of(outcome) == "int8 static"
    assert "is not settled: 2.27x (in too few runs to tell) in the search" in outcome.why[-1]
    slower = (0.9, 0.0, float("inf"))
    outcome = search([slower], NOTHING)
    assert name_of(outcome) == "float simplified"
    assert "could not be settled" in outcome.why[-1]


@pytest.mark.parametrize(
    ("interval", "verdict", "required", "standing"),
    [
        ((1.5, 1.2, 1.8), "better", 1.0, "proved"),
        ((1.5, 0.9, 2.0), "inconclusive", 1.0, "open"),
        ((1.0, 0.98, 1.02), "same", 1.0, "refuted"),
        ((0.8, 0.7, 0.9), "worse", 1.0, "refuted"),
        ((1.5, 1.2, 1.8), "better", 2.0, "refuted"),
        ((1.9, 1.6, 2.2), "better", 2.0, "open"),
        ((2.3, 2.0, 2.6), "better", 2.0, "proved"),
        ((1.0, 0.0, float("inf")), "inconclusive", 0.0, "proved"),
        (NOTHING, "inconclusive", 1.0, "open"),
    ],
)
def test_where_a_speed_up_stands(
    interval: Interval, verdict: str, required: float, standing: str
) -> None:
    assert speed_standing(compared(interval, verdict), required) == standing


@pytest.mark.slow
def test_a_speed_up_that_is_asked_for_and_open_is_told_as_not_settled() -> None:
    outcome = search([(1.9, 1.6, 2.2)], constraints=LOOSE | {"min_speedup": 1.8})
    assert name_of(outcome) == "int8 static"
    assert outcome.chosen is not None
    assert outcome.chosen.standing == "open"


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "times"), [(None, fresh_run.TIMES), (40.0, None)])
def test_a_fresh_run_is_bounded(seconds: float | None, times: int | None) -> None:
    asked: list[float] = []

    def measure(base: Model, candidates: Sequence[Model], *rest: Any) -> Sequence[Any]:
        asked.append(rest[-1])
        again = len(asked) > 2
        found = fast_int8(base, candidates)
        return [compared(OPEN) for _ in candidates] if again else found

    optimize(
        graphs.cnn(),
        arrays(120),
        measure=measure,
        constraints=LOOSE,
        passes=("simplify", "quantize-static"),
        budget=TimeBudget(seconds),
    )
    allowed = seconds or times * fresh_run.SECONDS_PER_GRAPH  # type: ignore[operator]
    assert sum(asked[2:]) <= 2 * allowed + 1


def test_a_time_that_was_too_short_does_not_blame_a_candidate() -> None:
    from trimtab.runtime_bench.measure.contenders.pacing import is_too_little_time, too_little_time

    short = str(too_little_time(1e9, 0.0, 5.0))
    assert is_too_little_time(short)
    assert not is_too_little_time("its process died")
    calls: list[int] = []

    def measure(base: Model, candidates: Sequence[Model], *rest: Any) -> Sequence[Any]:
        calls.append(len(candidates))
        found = fast_int8(base, candidates)
        return [made_comparison(2.0, short) for _ in candidates] if len(calls) == 2 else found

    passes, budget = ("simplify", "quantize-static"), TimeBudget(300.0)
    outcome = optimize(
        graphs.cnn(), arrays(120), measure=measure, constraints=LOOSE, passes=passes, budget=budget
    )
    assert not any(r.failure for r in outcome.results)
    assert name_of(outcome) == "int8 static"


def test_the_same_answers_are_one_look() -> None:
    def answering(name: str, *scores: float) -> Result:
        items = np.array(scores)
        quality = Quality("top1", float(items.mean()), items, len(items))
        return Result(name, selection=quality, test=quality)

    confirmation = Confirmation(
        cast("Any", SimpleNamespace(evaluator=None, rows_in_time=None)),
        answering("original", 1, 1, 1, 1),
        [],
        [],
        [],
    )
    judged = SimpleNamespace(judged=lambda result: result)
    confirmation.judge = cast("Any", judged)
    seen = []
    for result in (
        answering("pruned", 1, 0, 1, 1),
        answering("pruned, weights in 8 bits", 1, 0, 1, 1),
        answering("other", 0, 1, 1, 1),
        answering("pruned, weights in 16 bits", 1, 0, 1, 1),
    ):
        confirmation._looked_at(result)
        seen.append(confirmation.looks)
    assert seen == [1, 1, 2, 2]
