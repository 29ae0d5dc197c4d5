"""Who runs when: randomised blocks with new sessions. Times nothing itself: contenders do.

Two random draws carry the method. The order ABBA or BAAB is one: in a simulation with noise that
depends on the position in the block, a fixed order gave 19-21% false alarms at a nominal 1%, the
random one 0.2-0.4%. Which process holds which model, with sessions made anew for each block, is the
other: two sessions of the same model differ by where their memory came to lie. Measured on a model
of 3 MB, that luck had a standard deviation of 1.5% and stayed as long as the sessions did, so that
a test of two fixed sessions "proves" differences of 5% between a model and itself.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from trimtab.core.errors import RunError
from trimtab.core.ort.session import Feeds

from ..stats.e_process import PairedTest
from .contender import Contender, Runs, exchange_workers
from .pacing import BlockPlan, warm_up


@dataclass
class BlockPair:
    """A candidate, its base, and what was measured of both.

    Attributes:
        base: the base's contender; candidates share it.
        candidate: the candidate's contender.
        test: log ratios of blocks.
        base_runs: all timed runs of the base in this pair's blocks.
        candidate_runs: all of the candidate.
        error: why one of them cannot go on.
    """

    base: Contender
    candidate: Contender
    test: PairedTest = field(default_factory=PairedTest)
    base_runs: list[Runs] = field(default_factory=list)
    candidate_runs: list[Runs] = field(default_factory=list)
    error: RunError | None = None


@dataclass
class Sampler:
    """Measures pairs until all are settled or the time is up.

    Attributes:
        rng: draws orders, workers and turns.
        now: monotonic clock in nanoseconds.
        canary: a constant kernel, timed once per round; None for none.
        canary_ns: its times.
        plan: how long blocks are, known after the warm-up.
    """

    rng: np.random.Generator
    now: Callable[[], int]
    canary: Callable[[], int] | None = None
    canary_ns: list[int] = field(default_factory=list)
    plan: BlockPlan = field(default_factory=BlockPlan)

    def blocks(
        self,
        pairs: Sequence[BlockPair],
        feeds: Feeds,
        *,
        seconds: float,
        until: Callable[[PairedTest], bool],
    ) -> Iterator[BlockPair]:
        """Measure in rounds, and yield each pair after its block, until all are settled or time.

        A round holds one block of each open pair, their orders mixed at random. A pair whose model
        fails gets its error and leaves; the others go on.

        Raises:
            RunError: the base cannot be warmed up.
        """
        end = self.now() + int(seconds * 1e9)
        self._prepare(pairs, feeds, seconds)
        while self.now() < end:
            still = [p for p in pairs if not p.error and not until(p.test)]
            if not still:
                return
            if self.plan.renew:
                self._renew(still)
            yield from self._round(still)

    def _round(self, pairs: Sequence[BlockPair]) -> Iterator[BlockPair]:
        """One block of each pair."""
        if self.canary is not None:
            self.canary_ns.append(self.canary())
        found: list[list[float]] = [[] for _ in pairs]
        for _ in range(self.plan.repeats):
            for index in self.rng.permutation(len(pairs)):
                pair = pairs[index]
                if pair.error is None:
                    self._order(pair, found[index])
        for pair, log_ratios in zip(pairs, found, strict=True):
            if pair.error is None:
                pair.test.add(statistics.median(log_ratios))
                yield pair

    def _order(self, pair: BlockPair, log_ratios: list[float]) -> None:
        """Time the pair once in the order ABBA or BAAB."""
        plan = self.plan
        taken: dict[str, list[Runs]] = {"A": [], "B": []}
        try:
            for slot in "ABBA" if self.rng.integers(2) else "BAAB":
                contender = pair.base if slot == "A" else pair.candidate
                taken[slot].append(contender.time(plan.discard + plan.runs).after(plan.discard))
        except RunError as error:
            pair.error = error
            return
        pair.base_runs += taken["A"]
        pair.candidate_runs += taken["B"]
        log_ratios.append(math.log(_median_ns(taken["A"]) / _median_ns(taken["B"])))

    def _prepare(self, pairs: Sequence[BlockPair], feeds: Feeds, seconds: float) -> None:
        """Warm all contenders and make the plan; the slowest one decides the length of slots."""
        share = seconds / 10 / (len(pairs) + 1)
        bases = {id(pair.base): pair.base for pair in pairs}
        slowest = max(
            (warm_up(contender, feeds, self.now, share) for contender in bases.values()),
            default=1.0,
        )
        for pair in pairs:
            try:
                slowest = max(slowest, warm_up(pair.candidate, feeds, self.now, share))
            except RunError as error:
                pair.error = error
        start = self.now()
        self._renew([p for p in pairs if not p.error])
        self.plan = BlockPlan.of(slowest, self.now() - start, seconds, len(pairs))

    def _renew(self, pairs: Sequence[BlockPair]) -> None:
        """New sessions in workers dealt out at random, made in random order."""
        contenders = list(
            {
                id(contender): contender for p in pairs for contender in (p.base, p.candidate)
            }.values()
        )
        exchange_workers(contenders, self.rng)
        for index in self.rng.permutation(len(contenders)):
            contender = contenders[index]
            try:
                contender.renew()
            except RunError as error:
                for pair in pairs:
                    if contender is pair.candidate or contender is pair.base:
                        pair.error = pair.error or error


@dataclass
class SideBySide:
    """Rounds of one slot of each contender in random order, for medians without a verdict.

    Sessions are made anew before a round as long as that has taken less time than the rounds.

    Attributes:
        contenders: warmed up.
        rng: draws turns and workers.
        now: monotonic clock in nanoseconds.
        plan: how long slots are.
    """

    contenders: Sequence[Contender]
    rng: np.random.Generator
    now: Callable[[], int]
    plan: BlockPlan
    _renewing_ns: int = 0
    _timing_ns: int = 0

    def round(self) -> list[tuple[int, Runs]]:
        """One slot of each contender, by its index."""
        start = self.now()
        if self._renewing_ns <= self._timing_ns:
            exchange_workers(self.contenders, self.rng)
            for index in self.rng.permutation(len(self.contenders)):
                self.contenders[index].renew()
        renewed = self.now()
        discard, runs = self.plan.discard, self.plan.runs
        slots = [
            (int(i), self.contenders[i].time(discard + runs).after(discard))
            for i in self.rng.permutation(len(self.contenders))
        ]
        self._renewing_ns += renewed - start
        self._timing_ns += self.now() - renewed
        return slots


def _median_ns(slots: Sequence[Runs]) -> float:
    return max(1.0, float(statistics.median(ns for runs in slots for ns in runs.ns)))
