"""A time limit: work that takes too long ends, what is too dear is left out, and room is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import graphs
import pytest
from cnn_data import arrays
from search_fakes import LOOSE, fast_int8

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.passes.base import Pass, Rewrite
from trimtab.search.alarm import OutOfTime, alarm
from trimtab.search.optimize import optimize
from trimtab.search.recipe import Recipe
from trimtab.search.reporting.evidence import gather_evidence
from trimtab.search.reporting.outcome import Outcome
from trimtab.search.result import Result
from trimtab.search.run import Search
from trimtab.search.time_budget import Spent, TimeBudget


def test_an_alarm_ends_what_runs_too_long_and_leaves_others_alone() -> None:
    with pytest.raises(OutOfTime), alarm(5.0), alarm(0.01):
        time.sleep(60)
    with alarm(float("inf")):
        pass
    with pytest.raises(OutOfTime), alarm(0.0):
        pytest.fail("no time was left")


def test_an_alarm_rings_again_where_something_caught_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trimtab.search.alarm.AGAIN", 0.01)

    def careless() -> None:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 - what it must not do
            time.sleep(60)

    with pytest.raises(OutOfTime), alarm(0.01):
        careless()


@dataclass(frozen=True)
class Sleeper(Pass):
    """Take far too long."""

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        time.sleep(600)
        return Rewrite(model.ir)


def search(passes: Any, budget: TimeBudget) -> Outcome:
    return optimize(
        graphs.cnn(),
        arrays(120),
        passes=passes,
        constraints=LOOSE,
        measure=fast_int8,
        budget=budget,
    )


@pytest.mark.slow
def test_a_pass_that_takes_too_long_ends_and_the_rest_is_decided() -> None:
    outcome = search([Sleeper(), "simplify", "quantize-static"], TimeBudget(6.0))
    assert outcome.chosen is not None
    assert "sleeper" not in {r.name for r in outcome.results}
    said = " ".join(d["what"] for d in outcome.decisions)
    assert "sleeper: time ended before it was made" in said or "sleeper is left out" in said
    assert "--time" in outcome.advice


@pytest.mark.slow
def test_making_leaves_room_to_measure_what_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"prune-channels": 1000.0}
    monkeypatch.setattr("trimtab.search.run.pass_seconds", lambda p, *_: known.get(p.name(), 0.0))
    outcome = search(None, TimeBudget(300.0))
    said = " ".join(d["what"] for d in outcome.decisions)
    assert "pruned to 93% is left out: making it takes about 10" in said
    assert "none was left for pruned to 93%" in outcome.advice
    assert not any(r.name.startswith("pruned") for r in outcome.results)


def test_the_dearest_is_made_last_where_time_is_limited() -> None:
    costs = {"a": 5.0, "b": 1.0, "c": 3.0}
    recipes = [Recipe(name, ()) for name in costs]

    def order(seconds: float | None) -> str:
        spent = SimpleNamespace(budget=TimeBudget(seconds))
        search: Any = SimpleNamespace(spent=spent, making_s=lambda recipe: costs[recipe.name])
        return "".join(r.name for r in Search._dearest_last(search, recipes))

    assert order(300.0) == "bca"
    assert order(None) == "abc"


def test_shares_of_the_time_add_up() -> None:
    spent = Spent(TimeBudget(100.0), time.monotonic() - 10)
    assert spent.confirming_s is not None
    assert spent.left_s < spent.confirming_s < spent.evidence_s < 90
    assert spent.making_s(3) < spent.making_s(0) < spent.left_s
    free = replace(spent, budget=TimeBudget())
    assert free.confirming_s is None
    assert free.left_s == free.evidence_s == free.making_s(5) == float("inf")


def test_evidence_that_time_does_not_reach_is_listed_as_missing() -> None:
    original = Result("original", model=graphs.cnn())
    found = gather_evidence(
        original,
        [],
        replace(original, name="same"),
        held_out=None,  # type: ignore[arg-type]
        feeds={},
        ctx=Context(),
        seconds=0.0,
    )
    assert found["missing"]["times"] == "Not gathered: the time was used up."
