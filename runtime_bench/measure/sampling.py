"""Sampling in randomised blocks with new sessions. The contenders do the timing.

The method rests on two random draws. One is the order, ABBA or BAAB: in a simulation with noise
that depends on the position in the block, a fixed order gave 19-21% false alarms at a nominal 1%,
the random one 0.2-0.4%. The other is which process holds which model, with new sessions for each
block: two sessions of the same model differ by where their memory lies. For a model of 3 MB this
effect had a standard deviation of 1.5% and lasted as long as the sessions, so that a test of two
fixed sessions "proves" differences of 5% between a model and itself.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trimtab.core.errors import RunError
from trimtab.core.ort.session import Feeds
from trimtab.core.text import duration_text

from ..stats.e_process import PairedTest
from .contenders.contender import Contender, exchange_workers
from .contenders.pacing import (
    FEWEST_BLOCKS,
    OVERRUN,
    VERDICT_BLOCKS,
    BlockPlan,
    fits,
    may_renew,
    too_little_time,
    warm_up,
)
from .timing import Runs

_REVERSED = str.maketrans("AB", "BA")


@dataclass
class BlockPair:
    """A candidate, its base, and the samples of both.

    Attributes:
        base: contender of the base; candidates share it.
        candidate: contender of the candidate.
        test: sequential test of the blocks' log ratios.
        base_runs: all timed runs of the base in this pair's blocks.
        candidate_runs: all timed runs of the candidate.
        error: reason why one of them cannot go on.
    """

    base: Contender
    candidate: Contender
    test: PairedTest = field(default_factory=PairedTest)
    base_runs: list[Runs] = field(default_factory=list)
    candidate_runs: list[Runs] = field(default_factory=list)
    error: RunError | None = None


@dataclass
class Sampler:
    """Sampler of pairs, until all are decided or the time is up.

    Attributes:
        rng: source of orders, workers and turns.
        now: monotonic clock in nanoseconds.
        canary: constant kernel that is timed once per round; None to leave it out.
        plan: length of blocks, known after the warm-up.
        say: receives what the user should know before the blocks begin.
        run_ns: time of the slowest contender's run, known after the warm-up.
        round_ns: time of a round, of the plan at first.
    """

    rng: np.random.Generator
    now: Callable[[], int]
    canary: Callable[[], int] | None = None
    canary_ns: list[int] = field(default_factory=list)
    plan: BlockPlan = field(default_factory=BlockPlan)
    say: Callable[[str], None] = lambda _: None
    run_ns: float = 1.0
    round_ns: float = 0.0

    def blocks(
        self,
        pairs: Sequence[BlockPair],
        feeds: Feeds,
        *,
        seconds: float,
        until: Callable[[PairedTest], bool],
    ) -> Iterator[BlockPair]:
        """Measure in rounds, and yield each pair after its block, until all are decided.

        A round has one block of each open pair, in random order. A pair whose model fails gets its
        error and drops out; the others go on. A round that would end too late is not begun; where
        that is the first one, the error of each pair says so.

        Raises:
            RunError: the base cannot be warmed up.
        """
        start = self.now()
        self.prepare(pairs, feeds, seconds)
        while active := [p for p in pairs if not p.error and not until(p.test)]:
            began = self.now()
            left = seconds - (began - start) / 1e9
            first = not any(p.test.blocks for p in pairs)
            late = left <= 0 and not first
            if late or not fits(self.round_ns, left, seconds, first=first):
                for pair in active:
                    if not pair.test.blocks:
                        pair.error = too_little_time(self.round_ns, left, seconds)
                return
            if self.plan.renew:
                self._renew(active)
            yield from self._round(active)
            self.round_ns = self.now() - began

    def _round(self, pairs: Sequence[BlockPair]) -> Iterator[BlockPair]:
        """Take one block of each pair."""
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
        """Time the pair once in the order of the plan or its reverse."""
        plan = self.plan
        taken: dict[str, list[Runs]] = {"A": [], "B": []}
        try:
            for slot in plan.order if self.rng.integers(2) else plan.order.translate(_REVERSED):
                contender = pair.base if slot == "A" else pair.candidate
                taken[slot].append(contender.time(plan.discard + plan.runs).after(plan.discard))
        except RunError as error:
            pair.error = error
            return
        pair.base_runs += taken["A"]
        pair.candidate_runs += taken["B"]
        log_ratios.append(math.log(_median_ns(taken["A"]) / _median_ns(taken["B"])))

    def prepare(self, pairs: Sequence[BlockPair], feeds: Feeds, seconds: float) -> None:
        """Warm up all contenders and make the plan; the slowest decides the length of slots.

        Raises:
            RunError: the base cannot be warmed up.
        """
        begin, share = self.now(), seconds / 10 / (len(pairs) + 1)
        bases = {id(pair.base): pair.base for pair in pairs}
        slowest = max(
            (warm_up(contender, feeds, self.now, share) for contender in bases.values()),
            default=1.0,
        )
        for pair in pairs:
            left = seconds - (self.now() - begin) / 1e9
            try:
                if not fits(2 * slowest, left, seconds, first=True):
                    raise too_little_time(2 * slowest, left, seconds)
                slowest = max(slowest, warm_up(pair.candidate, feeds, self.now, share))
            except RunError as error:
                pair.error = error
        count, start = len(pairs), self.now()
        always_new = all(c.always_new for p in pairs for c in (p.base, p.candidate))
        renew_ns = 0.0 if always_new else math.inf
        if not always_new and may_renew(slowest, seconds, count):
            self._renew([p for p in pairs if not p.error])
            renew_ns = self.now() - start
        left = seconds - (start - begin) / 1e9
        plan = BlockPlan.of(slowest, renew_ns, left, count)
        self.run_ns, self.plan = slowest, replace(plan, renew=plan.renew or always_new)
        self.round_ns = self.plan.block_ns(slowest * count, renew_ns)
        blocks = int((left + OVERRUN * seconds) * 1e9 / self.round_ns)
        if 0 < blocks < FEWEST_BLOCKS:
            self.say(
                f"a run takes up to {duration_text(slowest)}: about {blocks} blocks fit into "
                f"{duration_text(seconds * 1e9)}; a verdict takes {VERDICT_BLOCKS} or more"
            )

    def _renew(self, pairs: Sequence[BlockPair]) -> None:
        """Build new sessions, in randomly assigned workers and in random order."""
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
    """Rounds of a slot of each warm contender in random order, for medians without a verdict.

    Sessions are renewed before a round as long as renewing has taken less time than the rounds.
    The clock counts nanoseconds.
    """

    contenders: Sequence[Contender]
    rng: np.random.Generator
    now: Callable[[], int]
    plan: BlockPlan
    _renewing_ns: int = 0
    _timing_ns: int = 0

    def round(self) -> list[tuple[int, Runs]]:
        """Take one slot of each contender; return (index, runs) of each."""
        start = self.now()
        if self.plan.renew and self._renewing_ns <= self._timing_ns:
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
