"""Latency of candidates: measured in rounds against the original, each structure once.

Dense kernels take the same time whatever the values, so one of several equal structures represents
all. Measurements on this class of machine are kept; the winner is measured again in any case.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.core.progress import Progress
from trimtab.core.text import counted
from trimtab.runtime_bench.bench.bench import Bench, LocalBench, Timing
from trimtab.runtime_bench.measure.contenders.pacing import is_too_little_time
from trimtab.runtime_bench.measure.pooling import pooled
from trimtab.runtime_bench.measure.subject import OnEngine
from trimtab.runtime_bench.measure.values import Comparison
from trimtab.runtime_bench.multi_device import machine_classes

from ..result import Result
from ..standing import is_bounded
from ..store import ResultStore, key_of, key_of_feeds
from .fingerprint import kernels, running_structure, structure

#: (original, candidates, feeds, context, seconds) -> a comparison for each candidate: a `Model`, or
#: an `OnEngine` where it has an engine of its own
Measure = Callable[[Model, Sequence[Any], Feeds, Context, float], Sequence[Comparison]]
T = TypeVar("T")
#: Most seconds of measurement of a graph.
SECONDS_PER_GRAPH = 12.0
#: `measured_as` of a candidate that runs the original's graph.
ORIGINAL = "original"
#: Probability that any of the intervals of the search misses its ratio, whenever it stops.
ALPHA = 0.05
#: Widths of an interval, see `Timing`: none but a verdict; enough to rank what lies far apart.
VERDICT_ALONE, COARSE = math.inf, 0.1
#: Graphs that are measured side by side on a noisy machine: fewer get more blocks each, so that
#: the first are decided where time ends before all are.
BESIDE_IN_NOISE = 3


@dataclass(frozen=True, eq=False)
class Load:
    """Load under which throughput is measured.

    Attributes:
        feeds: rows of a run.
        callers: callers that run at once.
    """

    feeds: Feeds
    callers: int


def measuring(
    bench: Bench, alpha: float, *, width: float | None = None, part: int = 0, callers: int = 1
) -> Measure:
    """Return a bench with a share of the error rate, for comparisons of a width, see `Timing`.

    Each part of a measurement in several runs has its own order of blocks.
    """

    def measure(
        model: Model, candidates: Sequence[Any], feeds: Feeds, ctx: Context, seconds: float
    ) -> Sequence[Comparison]:
        config, seed = SessionConfig.of(ctx.target), ctx.seed + part
        how = Timing(config, seconds, alpha=alpha, seed=seed, width=width, concurrency=callers)
        return bench.compare(model, candidates, feeds, how, ctx.progress)

    return measure


@dataclass
class _Starting:
    """Progress that passes everything on and takes the time until the first item.

    Attributes:
        inner: progress that shows it.
        seconds: seconds until the first item; 0 where there was none.
    """

    inner: Progress
    seconds: float = 0.0
    start: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Pass a line on."""
        self.inner.say(text)

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items; note when the first came."""
        for item in self.inner.track(items, label, total):
            self.seconds = self.seconds or time.monotonic() - self.start
            yield item


@dataclass
class Timer:
    """Timer that measures candidates in rounds.

    Attributes:
        original: model that all are measured against.
        feeds: inputs of a run of one item.
        ctx: target, seed, progress.
        store: measurements on this class of machine.
        measure: function that measures; the bench where None, whose comparisons alone are kept.
        bench: bench that measures.
        load: load under which it measures; one caller with `feeds` where None.
        rounds: rounds so far; round r has ALPHA / 2^r of the error rate, so that all have ALPHA.
        known: comparison and name of the measured model, by structure.
        rough: structures that were measured briefly; the next round measures them again.
        starting_s: seconds until the first block of the last measurement.
    """

    original: Model
    feeds: Feeds
    ctx: Context
    store: ResultStore
    measure: Measure | None = None
    bench: Bench = field(default_factory=LocalBench)
    load: Load | None = None
    rounds: int = 0
    known: dict[str, tuple[Comparison, str]] = field(default_factory=dict)
    rough: set[str] = field(default_factory=set)
    starting_s: float = 0.0

    def measured(
        self,
        results: Sequence[Result],
        seconds: float | None,
        *,
        width: float | None = None,
        settle: bool = False,
    ) -> list[Result]:
        """Return the results with comparisons; those that have one, or no model, stay as they are.

        A round for verdicts alone is short; a later one measures more. A round that
        is to settle goes on with those without a verdict, whose blocks so far count.
        """
        keys = [
            kernels(r.subject) if r.model and self.lacks_time(r, settle=settle) else None
            for r in results
        ]
        wanted: dict[str, Result] = {}
        for result, key in zip(results, keys, strict=True):
            if key is not None and not self._knows(key, settle):
                wanted.setdefault(key, result)
        if wanted:
            self.rounds += 1
            self._measure(wanted, seconds, width=width)
        return [
            _with_comparison(r, *self.known[key]) if key in self.known else r
            for r, key in zip(results, keys, strict=True)
        ]

    def lacks_time(self, result: Result, *, settle: bool = False) -> bool:
        """Return whether a result was not measured, or too briefly to know much.

        To settle: whether its verdict is open.
        """
        if result.failure is not None or result.measured_as == ORIGINAL or result.model is None:
            return False
        if result.comparison is None or not _is_enough(result.comparison, settle):
            return True
        return bool(self.rough) and kernels(result.subject) in self.rough

    def _knows(self, which: str, settle: bool) -> bool:  # noqa: FBT001 - as its caller has it
        known = which in self.known and _is_enough(self.known[which][0], settle)
        return known and which not in self.rough

    @property
    def noisy(self) -> bool:
        """True where the last measurement found the machine disturbed."""
        if self.measure is not None or not self.known:
            return False
        last, _ = list(self.known.values())[-1]
        return not last.candidate.noise_check.fit

    def alike(self, result: Result) -> bool:
        """Return whether onnxruntime makes the original graph of a model: it is no faster then."""
        if self.measure is not None or result.model is None or result.engine is not None:
            return False
        return self._runs_as(result.model) == self._runs_as(self.original)

    def _runs_as(self, model: Model) -> str:
        config = SessionConfig.of(self.ctx.target)
        key = key_of("running", model=model.digest, config=config.to_json())
        return str(self.store.value(key, lambda: running_structure(model, config)))

    def again(
        self,
        models: Sequence[Model | OnEngine],
        seconds: float,
        *,
        width: float | None = None,
        part: int = 0,
    ) -> Sequence[Comparison]:
        """Measure in a fresh run, whatever is known."""
        measure = self._measuring(ALPHA, width=width, part=part)
        found = measure(self.original, models, self._run_feeds, self.ctx, seconds)
        short = [is_too_little_time(c.error) for c in found]
        return [replace(c, error=None) if s else c for c, s in zip(found, short, strict=True)]

    @property
    def callers(self) -> int:
        """Callers that run at once."""
        return 1 if self.load is None else self.load.callers

    @property
    def _run_feeds(self) -> Feeds:
        return self.feeds if self.load is None else self.load.feeds

    def _measuring(self, alpha: float, *, width: float | None, part: int) -> Measure:
        if self.measure is not None:
            return self.measure
        return measuring(self.bench, alpha, width=width, part=part, callers=self.callers)

    def joined(self, parts: Sequence[Comparison]) -> Comparison:
        """Return runs of one candidate as one; the last alone where a function measures."""
        return pooled(parts) if self.measure is None else parts[-1]

    def _measure(
        self, wanted: dict[str, Result], seconds: float | None, *, width: float | None
    ) -> None:
        alpha = ALPHA / 2**self.rounds
        keys = {s: self._key(s, alpha / len(wanted), width=width) for s in wanted}
        self.rough = set(wanted) if width == VERDICT_ALONE else self.rough - set(wanted)
        left, each = dict(wanted), (seconds or math.inf) / len(wanted)
        for which in list(left):
            found = None if self.measure else self.store.known(keys[which])
            if found is not None and _suffices(found, each):
                self.store.reused += 1
                self.known[which] = (Comparison.from_json(found), found["measured"])
                left.pop(which)
        if not left:
            return
        graphs = counted(len(left), "different graph")
        self.ctx.progress.say(f"measuring {graphs} against the original")
        each = (seconds or SECONDS_PER_GRAPH * len(left)) / len(left)
        beside = BESIDE_IN_NOISE if self.noisy else len(left)
        waiting = list(left.items())
        for first in range(0, len(waiting), beside):
            some = dict(waiting[first : first + beside])
            share = alpha * len(some) / len(wanted)
            if not self._measure_beside(some, share, each, keys, width=width):
                return

    def _measure_beside(
        self,
        results: dict[str, Result],
        alpha: float,
        each: float,
        keys: Mapping[str, str],
        *,
        width: float | None,
    ) -> bool:
        """Measure graphs side by side, each in addition to its earlier blocks.

        Returns:
            False where the user stopped it.
        """
        measure = self._measuring(alpha, width=width, part=self.rounds)
        limit = each * len(results)
        watch = _Starting(self.ctx.progress)
        ctx = replace(self.ctx, progress=watch)
        subjects = [r.subject for r in results.values()]
        found_now = measure(self.original, subjects, self._run_feeds, ctx, limit)
        self.starting_s = watch.seconds
        for (which, result), comparison in zip(results.items(), found_now, strict=True):
            if is_too_little_time(comparison.error):
                continue  # it stays as it was; the model is not to blame
            earlier = [self.known[which][0]] if which in self.known else []
            together = self.joined([*earlier, comparison])
            self.known.pop(which, None)  # the last measurement stands last
            self.known[which] = (together, result.name)
            if self.measure is None and not comparison.interrupted and not comparison.error:
                self.store.made += 1
                taken = {
                    "measured": result.name,
                    "taken": time.strftime("%Y-%m-%dT%H:%M:%S"),
                    "seconds_each": each,
                }
                self.store.keep(keys[which], together.to_json() | taken)
        return not any(c.interrupted for c in found_now)

    def _key(self, which: str, alpha: float, *, width: float | None) -> str:
        return key_of(
            "latency",
            base=structure(self.original),
            candidate=which,
            config=SessionConfig.of(self.ctx.target).to_json(),
            inputs=key_of_feeds(self._run_feeds),
            callers=self.callers,
            alpha=round(alpha, 9),
            width=width,
            machine=machine_classes(self.bench),
        )


def _is_enough(comparison: Comparison, settle: bool) -> bool:  # noqa: FBT001 - as its callers have it
    """Return whether there is an interval; to settle, whether there is a verdict."""
    return is_bounded(comparison) and not (settle and comparison.verdict == "inconclusive")


def _suffices(found: Any, seconds_each: float) -> bool:
    """Return whether a kept comparison had its verdict, or as much time as there is now."""
    enough = min(seconds_each, SECONDS_PER_GRAPH) <= 1.25 * float(found["seconds_each"])
    return found["verdict"] != "inconclusive" or enough


def _with_comparison(result: Result, comparison: Comparison, measured: str) -> Result:
    if comparison.error:
        return replace(result, failure=comparison.error)
    stands_for = None if measured == result.name else measured
    return replace(result, comparison=comparison, measured_as=stands_for)
