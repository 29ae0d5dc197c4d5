"""Latency of candidates: measured in rounds against the original, each structure once.

Dense kernels take the same time whatever the values, so one of several equal structures represents
all. Measurements on this class of machine are kept; the winner is measured again in any case.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds, SessionConfig, optimized_graph
from trimtab.runtime_bench.bench.bench import Bench, LocalBench, Timing
from trimtab.runtime_bench.measure.values import Comparison
from trimtab.runtime_bench.multi_device import machine_classes

from .fingerprint import structure
from .result import Result
from .store import ResultStore, key_of, key_of_feeds

#: (original, candidates, feeds, context, seconds) -> a comparison for each candidate
Measure = Callable[[Model, Sequence[Model], Feeds, Context, float], Sequence[Comparison]]
#: Most seconds of measurement of a graph.
SECONDS_PER_GRAPH = 12.0
#: `measured_as` of a candidate that runs the original's graph.
ORIGINAL = "original"
#: Probability that any of the intervals of the search misses its ratio, whenever it stops.
ALPHA = 0.05


def measuring(bench: Bench, alpha: float, *, brief: bool = False) -> Measure:
    """Return a bench with a share of the error rate; brief: it stops once a verdict stands."""

    def measure(
        model: Model, candidates: Sequence[Model], feeds: Feeds, ctx: Context, seconds: float
    ) -> Sequence[Comparison]:
        how = Timing(SessionConfig.of(ctx.target), seconds, alpha=alpha, seed=ctx.seed, brief=brief)
        return bench.compare(model, candidates, feeds, how, ctx.progress)

    return measure


@dataclass
class Timer:
    """Timer that measures candidates in rounds.

    Attributes:
        original: model that all are measured against.
        feeds: inputs of one run.
        ctx: target, seed, progress.
        store: measurements on this class of machine.
        measure: function that measures; the bench where None, whose comparisons alone are kept.
        bench: bench that measures.
        rounds: rounds so far; round r has ALPHA / 2^r of the error rate, so that all have ALPHA.
        known: comparison and name of the measured model, by structure.
        rough: structures that were measured briefly; the next round measures them again.
    """

    original: Model
    feeds: Feeds
    ctx: Context
    store: ResultStore
    measure: Measure | None = None
    bench: Bench = field(default_factory=LocalBench)
    rounds: int = 0
    known: dict[str, tuple[Comparison, str]] = field(default_factory=dict)
    rough: set[str] = field(default_factory=set)

    def measured(
        self, results: Sequence[Result], seconds: float | None, *, brief: bool = False
    ) -> list[Result]:
        """Return the results with comparisons; those that have one, or no model, stay as they are.

        A brief round stops as soon as the verdicts stand; a later one measures more.
        """
        keys = [structure(r.model) if r.model and self.lacks_time(r) else None for r in results]
        wanted: dict[str, Model] = {}
        for result, key in zip(results, keys, strict=True):
            if key is not None and result.model is not None and not self._knows(key):
                wanted.setdefault(key, result.model)
        if wanted:
            self.rounds += 1
            self._measure(wanted, seconds, brief=brief)
        return [
            r if key is None else _with_comparison(r, *self.known[key])
            for r, key in zip(results, keys, strict=True)
        ]

    def lacks_time(self, result: Result) -> bool:
        """Return whether a result was not measured, or too briefly to know much."""
        if result.failure is not None or result.measured_as == ORIGINAL or result.model is None:
            return False
        if result.comparison is None or _unbounded(result.comparison):
            return True
        return bool(self.rough) and structure(result.model) in self.rough

    def _knows(self, which: str) -> bool:
        known = which in self.known and not _unbounded(self.known[which][0])
        return known and which not in self.rough

    def alike(self, model: Model) -> bool:
        """Return whether onnxruntime makes the original graph of a model: it is no faster then."""
        return self.measure is None and self._runs_as(model) == self._runs_as(self.original)

    def _runs_as(self, model: Model) -> str:
        config = SessionConfig.of(self.ctx.target)
        key = key_of("running", model=model.digest, config=config.to_json())

        def found() -> str:
            return structure(replace(model, ir=optimized_graph(model, config)))

        return str(self.store.value(key, found))

    def again(self, models: Sequence[Model], seconds: float) -> Sequence[Comparison]:
        """Measure in a fresh run, whatever is known."""
        measure = self.measure or measuring(self.bench, ALPHA)
        return measure(self.original, models, self.feeds, self.ctx, seconds)

    def _measure(self, wanted: dict[str, Model], seconds: float | None, *, brief: bool) -> None:
        alpha = ALPHA / 2**self.rounds
        keys = {s: self._key(s, alpha / len(wanted), brief=brief) for s in wanted}
        self.rough = set(wanted) if brief else self.rough - set(wanted)
        left, each = dict(wanted), (seconds or math.inf) / len(wanted)
        for which in list(left):
            found = None if self.measure else self.store.known(keys[which])
            if found is not None and _suffices(found, each):
                self.store.reused += 1
                self.known[which] = (Comparison.from_json(found), found["measured"])
                left.pop(which)
        if not left:
            return
        self.ctx.progress.say(f"measuring {len(left)} different graphs against the original")
        alpha = alpha * len(left) / len(wanted)
        measure = self.measure or measuring(self.bench, alpha, brief=brief)
        limit = seconds or SECONDS_PER_GRAPH * len(left)
        found_now = measure(self.original, list(left.values()), self.feeds, self.ctx, limit)
        for (which, model), comparison in zip(left.items(), found_now, strict=True):
            self.known[which] = (comparison, model.name)
            if self.measure is None and not comparison.interrupted and not comparison.error:
                self.store.made += 1
                taken = {
                    "measured": model.name,
                    "taken": time.strftime("%Y-%m-%dT%H:%M:%S"),
                    "seconds_each": limit / len(left),
                }
                self.store.keep(keys[which], comparison.to_json() | taken)

    def _key(self, which: str, alpha: float, *, brief: bool) -> str:
        return key_of(
            "latency",
            base=structure(self.original),
            candidate=which,
            config=SessionConfig.of(self.ctx.target).to_json(),
            inputs=key_of_feeds(self.feeds),
            alpha=round(alpha, 9),
            brief=brief,
            machine=machine_classes(self.bench),
        )


def _unbounded(comparison: Comparison) -> bool:
    """Return whether the runs were too few for any interval: the next round measures again."""
    return math.isnan(comparison.ratio) or math.isinf(comparison.high)


def _suffices(found: Any, seconds_each: float) -> bool:
    """Return whether a kept comparison had its verdict, or as much time as there is now."""
    enough = min(seconds_each, SECONDS_PER_GRAPH) <= 1.25 * float(found["seconds_each"])
    return found["verdict"] != "inconclusive" or enough


def _with_comparison(result: Result, comparison: Comparison, measured: str) -> Result:
    if comparison.error:
        return replace(result, failure=comparison.error)
    stands_for = None if measured == result.name else measured
    return replace(result, comparison=comparison, measured_as=stands_for)
