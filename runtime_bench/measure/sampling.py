"""Who runs when: randomised blocks with new sessions. Times nothing itself: arms do.

Two random draws carry the method. The order ABBA or BAAB is one: in a simulation with noise that
depends on the position in the block, a fixed order gave 19-21% false alarms at a nominal 1%, the
random one 0.2-0.4%. Which process hosts which model, with sessions made anew for each block, is the
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
from .contender import Arm, Runs, exchange_hosts
from .pacing import Plan, warm_up


@dataclass
class Pair:
    """A candidate, its base, and what was measured of both.

    Attributes:
        base: the base's arm; candidates share it.
        candidate: the candidate's arm.
        test: log ratios of blocks.
        base_runs: all timed runs of the base in this pair's blocks.
        candidate_runs: all of the candidate.
        error: why one of them cannot go on.
    """

    base: Arm
    candidate: Arm
    test: PairedTest = field(default_factory=PairedTest)
    base_runs: list[Runs] = field(default_factory=list)
    candidate_runs: list[Runs] = field(default_factory=list)
    error: RunError | None = None


@dataclass
class Sampler:
    """Measures pairs until all are settled or the time is up.

    Attributes:
        rng: draws orders, hosts and turns.
        now: monotonic clock in nanoseconds.
        canary: a constant kernel, timed once per round; None for none.
        canary_ns: its times.
        plan: how long blocks are, known after the warm-up.
    """

    rng: np.random.Generator
    now: Callable[[], int]
    canary: Callable[[], int] | None = None
    canary_ns: list[int] = field(default_factory=list)
    plan: Plan = field(default_factory=Plan)

    def blocks(
        self,
        pairs: Sequence[Pair],
        feeds: Feeds,
        *,
        seconds: float,
        until: Callable[[PairedTest], bool],
    ) -> Iterator[Pair]:
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

    def _round(self, pairs: Sequence[Pair]) -> Iterator[Pair]:
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

    def _order(self, pair: Pair, log_ratios: list[float]) -> None:
        """Time the pair once in the order ABBA or BAAB."""
        plan = self.plan
        taken: dict[str, list[Runs]] = {"A": [], "B": []}
        try:
            for letter in "ABBA" if self.rng.integers(2) else "BAAB":
                arm = pair.base if letter == "A" else pair.candidate
                taken[letter].append(arm.time(plan.discard + plan.runs).after(plan.discard))
        except RunError as error:
            pair.error = error
            return
        pair.base_runs += taken["A"]
        pair.candidate_runs += taken["B"]
        log_ratios.append(math.log(_median_ns(taken["A"]) / _median_ns(taken["B"])))

    def _prepare(self, pairs: Sequence[Pair], feeds: Feeds, seconds: float) -> None:
        """Warm all arms and make the plan; the slowest arm decides the length of letters."""
        share = seconds / 10 / (len(pairs) + 1)
        bases = {id(pair.base): pair.base for pair in pairs}
        slowest = max((warm_up(arm, feeds, self.now, share) for arm in bases.values()), default=1.0)
        for pair in pairs:
            try:
                slowest = max(slowest, warm_up(pair.candidate, feeds, self.now, share))
            except RunError as error:
                pair.error = error
        start = self.now()
        self._renew([p for p in pairs if not p.error])
        self.plan = Plan.of(slowest, self.now() - start, seconds, len(pairs))

    def _renew(self, pairs: Sequence[Pair]) -> None:
        """New sessions in hosts dealt out at random, made in random order."""
        arms = list({id(arm): arm for p in pairs for arm in (p.base, p.candidate)}.values())
        exchange_hosts(arms, self.rng)
        for index in self.rng.permutation(len(arms)):
            arm = arms[index]
            try:
                arm.renew()
            except RunError as error:
                for pair in pairs:
                    if arm is pair.candidate or arm is pair.base:
                        pair.error = pair.error or error


@dataclass
class SideBySide:
    """Rounds of one letter of each arm in random order, for medians without a verdict.

    Sessions are made anew before a round as long as that has taken less time than the rounds.

    Attributes:
        arms: warmed up.
        rng: draws turns and hosts.
        now: monotonic clock in nanoseconds.
        plan: how long letters are.
    """

    arms: Sequence[Arm]
    rng: np.random.Generator
    now: Callable[[], int]
    plan: Plan
    _renewing_ns: int = 0
    _timing_ns: int = 0

    def round(self) -> list[tuple[int, Runs]]:
        """One letter of each arm, by its index."""
        start = self.now()
        if self._renewing_ns <= self._timing_ns:
            exchange_hosts(self.arms, self.rng)
            for index in self.rng.permutation(len(self.arms)):
                self.arms[index].renew()
        renewed = self.now()
        discard, runs = self.plan.discard, self.plan.runs
        letters = [
            (int(i), self.arms[i].time(discard + runs).after(discard))
            for i in self.rng.permutation(len(self.arms))
        ]
        self._renewing_ns += renewed - start
        self._timing_ns += self.now() - renewed
        return letters


def _median_ns(letters: Sequence[Runs]) -> float:
    return max(1.0, float(statistics.median(ns for runs in letters for ns in runs.ns)))
