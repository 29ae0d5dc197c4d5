"""Who runs when: randomised ABBA blocks, warm-up, stopping. Times nothing itself: arms do.

The fair coin is what carries the method. In a simulation with noise that depends on the position
in the block, a fixed order gave 19-21% false alarms at a nominal 1%, the random one 0.2-0.4%.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from trimtab.core.errors import RunError
from trimtab.core.session import Feeds

from .statistics import PairedTest

#: A letter times this many runs, and more of short ones, until it lasts `LETTER_NS`.
RUNS = 4
MAX_RUNS = 64
LETTER_NS = 2_000_000
#: A verdict takes some 25 to 100 blocks; letters shrink where the time would not hold 60.
WANTED_BLOCKS = 60
WARM_RUNS = 3


@dataclass(frozen=True)
class Runs:
    """Timed runs of one arm, in order.

    Attributes:
        ns: latency of each.
        switches: involuntary context switches during each; empty where the system tells none.
    """

    ns: tuple[int, ...]
    switches: tuple[int, ...] = ()

    def after(self, discarded: int) -> Runs:
        """Without the first ones."""
        return Runs(self.ns[discarded:], self.switches[discarded:])


class Arm(Protocol):
    """A model ready to be timed."""

    name: str

    def warm(self, feeds: Feeds) -> None:
        """Make the session, take the feeds, run once.

        Raises:
            RunError: onnxruntime refuses the model or the feeds, crashed, or hung.
        """
        ...

    def time(self, runs: int) -> Runs:
        """Run that many times, one after the other.

        Raises:
            RunError: it crashed, hung, or onnxruntime refused.
        """
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long a letter is.

    Attributes:
        discard: runs after each switch that are not timed, since the caches hold the other model.
        runs: runs that are.
    """

    discard: int = 1
    runs: int = RUNS

    @classmethod
    def of(cls, run_ns: float, seconds: float, pairs: int = 1) -> Plan:
        """The plan for a latency, a time limit and a number of candidates.

        One run after a switch is discarded (it took 5.5% longer with 3 MB of weights), of short
        models as many as a quarter of those timed, since a switch disturbs for a time, not for a
        number of runs.
        """
        fill = math.ceil(LETTER_NS / max(1.0, run_ns))
        afford = int(seconds * 1e9 / (WANTED_BLOCKS * pairs * 4 * max(1.0, run_ns))) - 1
        runs = max(1, min(max(RUNS, fill), MAX_RUNS, afford))
        return cls(max(1, runs // 4), runs)


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
        rng: draws the coin and the order of candidates.
        now: monotonic clock in nanoseconds.
        canary: a constant kernel, timed once per block; None for none.
        canary_ns: its times.
    """

    rng: np.random.Generator
    now: Callable[[], int]
    canary: Callable[[], int] | None = None
    canary_ns: list[int] = field(default_factory=list)

    def blocks(
        self,
        pairs: Sequence[Pair],
        feeds: Feeds,
        *,
        seconds: float,
        until: Callable[[PairedTest], bool],
    ) -> Iterator[Pair]:
        """Measure in rounds, and yield the pair after each block, until all are settled or time.

        A round holds one block of each open pair, in random order. A pair whose model fails gets
        its error and leaves; the others go on.

        Raises:
            RunError: the base cannot be warmed up.
        """
        end = self.now() + int(seconds * 1e9)
        plan = self._warm_up(pairs, feeds, seconds)
        while open_pairs := [p for p in pairs if not p.error and not until(p.test)]:
            for index in self.rng.permutation(len(open_pairs)):
                if self.now() >= end:
                    return
                self._block(open_pairs[index], plan)
                yield open_pairs[index]

    def _block(self, pair: Pair, plan: Plan) -> None:
        if self.canary is not None:
            self.canary_ns.append(self.canary())
        order = "ABBA" if self.rng.integers(2) else "BAAB"
        taken: dict[str, list[Runs]] = {"A": [], "B": []}
        try:
            for letter in order:
                arm = pair.base if letter == "A" else pair.candidate
                taken[letter].append(arm.time(plan.discard + plan.runs).after(plan.discard))
        except RunError as error:
            pair.error = error
            return
        pair.base_runs += taken["A"]
        pair.candidate_runs += taken["B"]
        pair.test.add(math.log(_median_ns(taken["A"]) / _median_ns(taken["B"])))

    def _warm_up(self, pairs: Sequence[Pair], feeds: Feeds, seconds: float) -> Plan:
        """Warm the base and each candidate; the slowest one decides the length of letters."""
        share = seconds / 10 / (len(pairs) + 1)
        bases = {id(pair.base): pair.base for pair in pairs}
        slowest = max((warm_up(arm, feeds, self.now, share) for arm in bases.values()), default=1.0)
        for pair in pairs:
            try:
                slowest = max(slowest, warm_up(pair.candidate, feeds, self.now, share))
            except RunError as error:
                pair.error = error
        return Plan.of(slowest, seconds, len(pairs))


def warm_up(arm: Arm, feeds: Feeds, now: Callable[[], int], seconds: float) -> float:
    """Run until latencies no longer fall: at least three runs, then until the slope is noise.

    Returns:
        Nanoseconds that a run takes by the clock, all that belongs to it included.
    """
    arm.warm(feeds)
    start = now()
    end = start + int(seconds * 1e9)
    seen = list(arm.time(WARM_RUNS).ns)
    taken_ns = (now() - start) / WARM_RUNS
    while now() < end and not steady(seen):
        start, runs = now(), max(1, len(seen) // 2)
        seen += arm.time(runs).ns
        taken_ns = (now() - start) / runs
    return taken_ns


def steady(ns: Sequence[int]) -> bool:
    """Whether the last five of ten groups of runs show no falling trend beyond their noise.

    The trend is the least-squares slope over the groups' medians; the noise its standard error.
    """
    if len(ns) < 20:
        return False
    groups = [float(np.median(part)) for part in np.array_split(np.asarray(ns, float), 10)][5:]
    x = np.arange(5) - 2.0
    slope = float(x @ groups) / 10
    rest = np.asarray(groups) - np.mean(groups) - slope * x
    error = math.sqrt(float(rest @ rest) / 3 / 10)
    return slope >= -2 * error or abs(slope) < 1e-3 * groups[-1]


def rounds(
    arms: Sequence[Arm], rng: np.random.Generator, plan: Plan
) -> Iterator[list[tuple[int, Runs]]]:
    """Endless rounds of one letter of each arm in random order, for medians side by side."""
    while True:
        yield [
            (int(i), arms[i].time(plan.discard + plan.runs).after(plan.discard))
            for i in rng.permutation(len(arms))
        ]


def _median_ns(letters: Sequence[Runs]) -> float:
    return max(1.0, float(statistics.median(ns for runs in letters for ns in runs.ns)))
