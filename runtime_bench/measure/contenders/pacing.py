"""The length of the warm-up, of slots and of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.core.errors import RunError
from trimtab.core.ort.session import Feeds
from trimtab.core.text import duration_text

from .contender import Contender

#: Timed runs of a slot; more of short ones, until it lasts `SLOT_NS`.
RUNS = 4
MAX_RUNS = 64
SLOT_NS = 2_000_000
#: A verdict takes some 14 to 80 blocks; blocks are shortened if the time limit allows fewer.
WANTED_BLOCKS = 60
#: If fewer than this fit with new sessions in each, sessions are kept.
FEWEST_BLOCKS = 20
MAX_REPEATS = 8
WARM_RUNS = 3
#: A model whose run takes longer than this many times its share of the warm-up is run only once.
SLOW = 2.0
#: A round begins where it ends at most this part of the time limit too late; the first one also
#: where it takes at most this many seconds, so that there is something to report.
OVERRUN = 0.05
FIRST_SECONDS = 1.0
#: Fewest blocks that can give a verdict at an error rate of 1%, however large the difference.
VERDICT_BLOCKS = 14
#: On a device, groups of `WARM_RUNS` run until the best of a group is above this part of the last.
FALLING = 0.95
MOST_GROUPS = 10


@dataclass(frozen=True)
class BlockPlan:
    """Length of a block.

    Attributes:
        discard: untimed runs after each switch, since the caches hold the other model.
        runs: timed runs of a slot.
        repeats: ABBA orders within a block.
        renew: true where each block has new sessions.
        order: order of the slots of base (A) and candidate (B), or its reverse, by a coin.
    """

    discard: int = 1
    runs: int = RUNS
    repeats: int = 1
    renew: bool = True
    order: str = "ABBA"

    @classmethod
    def of(cls, run_ns: float, renew_ns: float, seconds: float, pairs: int = 1) -> BlockPlan:
        """Plan for the slowest model's latency, the time to build all sessions, and a time limit.

        One run after a switch is discarded (it took 5.5% longer with 3 MB of weights); of short
        models as many as a quarter of those timed, since a switch disturbs for a time, not for a
        number of runs. A block measures about as long as its sessions took to build. Where too few
        blocks fit, none is discarded, and then a block is a single pair of runs.
        """
        run_ns = max(1.0, run_ns)
        renew = renew_ns + 8 * run_ns * pairs <= seconds * 1e9 / FEWEST_BLOCKS
        left_ns = seconds * 1e9 / WANTED_BLOCKS - (renew_ns if renew else 0)
        affordable = int(left_ns / (4 * run_ns * pairs)) - 1
        runs = max(1, min(max(RUNS, math.ceil(SLOT_NS / run_ns)), MAX_RUNS, affordable))
        discard = max(1, runs // 4)
        order_ns = 4 * (runs + discard) * run_ns * pairs
        repeats = round(min(renew_ns, left_ns) / order_ns) if renew else 1
        most_runs = seconds * 1e9 / (run_ns * pairs * VERDICT_BLOCKS)  # of a block
        if most_runs < 8:
            return cls(0, 1, renew=False, order="ABBA" if most_runs >= 4 else "AB")
        return cls(discard, runs, max(1, min(repeats, MAX_REPEATS)), renew)

    def block_ns(self, run_ns: float, renew_ns: float = 0.0) -> float:
        """Return how long a block of one pair takes, where a run takes `run_ns`."""
        runs = len(self.order) * (self.discard + self.runs) * self.repeats
        return runs * run_ns + (renew_ns if self.renew else 0.0)


def may_renew(run_ns: float, seconds: float, pairs: int) -> bool:
    """Return whether new sessions, which run a few times, can fit into each block."""
    runs = WARM_RUNS * (pairs + 1) + 8 * pairs
    return runs * run_ns <= seconds * 1e9 / FEWEST_BLOCKS


def fits(round_ns: float, left: float, seconds: float, *, first: bool = False) -> bool:
    """Return whether a round ends in time, with seconds left of the time limit."""
    allowed = left + OVERRUN * seconds
    return round_ns / 1e9 <= (max(allowed, FIRST_SECONDS) if first else allowed)


#: Words by which the error below is known once it is a text.
LEFT_OF = "are left of"


def too_little_time(round_ns: float, left: float, seconds: float) -> RunError:
    """Return the error for a time limit that not even one round fits into."""
    needed = math.ceil(seconds - left + VERDICT_BLOCKS * round_ns / 1e9)
    return RunError(
        f"one run of each takes about {duration_text(round_ns)}, and "
        f"{duration_text(max(0.0, left) * 1e9)} {LEFT_OF} {duration_text(seconds * 1e9)}",
        hint=f"Give --max-time {needed}s or more",
    )


def is_too_little_time(error: str | None) -> bool:
    """Return whether an error says that the time limit was too short: the model is not to blame."""
    return error is not None and LEFT_OF in error


def warm_up(contender: Contender, feeds: Feeds, now: Callable[[], int], seconds: float) -> float:
    """Run until latencies no longer fall: three runs, then until the slope is noise.

    A slow model is run twice or, if a run takes longer than this time twice over, only once.

    Returns:
        Wall-clock nanoseconds per run, with all overhead.
    """
    first_ns = contender.warm(feeds)
    if contender.placement is None and first_ns > SLOW * seconds * 1e9:
        return first_ns  # on a device the first run says nothing about the next
    runs = WARM_RUNS if WARM_RUNS * first_ns <= seconds * 1e9 else 1
    start = now()
    end = start + int(seconds * 1e9)
    seen = list(contender.time(runs).ns)
    taken_ns = (now() - start) / runs
    while now() < end and not steady(seen):
        start, runs = now(), max(1, len(seen) // 2)
        seen += contender.time(runs).ns
        taken_ns = (now() - start) / runs
    return taken_ns


def stabilize(contender: Contender, *, on_device: bool) -> None:
    """Run a new session a few times; on a device until it no longer gets faster.

    There the first run of a shape searches for algorithms, compiles kernels, or captures a graph,
    and may take a thousand times longer (2975 ms, then 2.5 ms, in onnxruntime's issue 9667).
    """
    best = min(contender.time(WARM_RUNS).ns)
    for _ in range(MOST_GROUPS if on_device else 0):
        last = min(contender.time(WARM_RUNS).ns)
        if last >= FALLING * best:
            return
        best = min(best, last)


def steady(ns: Sequence[int]) -> bool:
    """Return whether the last five of ten groups of runs show no falling trend beyond noise.

    The trend is the least-squares slope over the groups' medians, the noise its standard error.
    """
    if len(ns) < 20:
        return False
    groups = [float(np.median(part)) for part in np.array_split(np.asarray(ns, float), 10)][5:]
    x = np.arange(5) - 2.0
    slope = float(x @ groups) / 10
    rest = np.asarray(groups) - np.mean(groups) - slope * x
    error = math.sqrt(float(rest @ rest) / 3 / 10)
    return slope >= -2 * error or abs(slope) < 1e-3 * groups[-1]
