"""The length of the warm-up, of slots and of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.core.ort.session import Feeds

from .contender import Contender

#: Timed runs of a slot; more of short ones, until it lasts `SLOT_NS`.
RUNS = 4
MAX_RUNS = 64
SLOT_NS = 2_000_000
#: A verdict takes some 25 to 100 blocks; blocks are shortened if the time limit allows fewer.
WANTED_BLOCKS = 60
#: If fewer than this fit with new sessions in each, sessions are kept.
FEWEST_BLOCKS = 30
MAX_REPEATS = 8
WARM_RUNS = 3
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
    """

    discard: int = 1
    runs: int = RUNS
    repeats: int = 1
    renew: bool = True

    @classmethod
    def of(cls, run_ns: float, renew_ns: float, seconds: float, pairs: int = 1) -> BlockPlan:
        """Plan for the slowest model's latency, the time to build all sessions, and a time limit.

        One run after a switch is discarded (it took 5.5% longer with 3 MB of weights); of short
        models as many as a quarter of those timed, since a switch disturbs for a time, not for a
        number of runs. A block measures about as long as its sessions took to build.
        """
        run_ns = max(1.0, run_ns)
        renew = renew_ns + 8 * run_ns * pairs <= seconds * 1e9 / FEWEST_BLOCKS
        left_ns = seconds * 1e9 / WANTED_BLOCKS - (renew_ns if renew else 0)
        affordable = int(left_ns / (4 * run_ns * pairs)) - 1
        runs = max(1, min(max(RUNS, math.ceil(SLOT_NS / run_ns)), MAX_RUNS, affordable))
        discard = max(1, runs // 4)
        order_ns = 4 * (runs + discard) * run_ns * pairs
        repeats = round(min(renew_ns, left_ns) / order_ns) if renew else 1
        return cls(discard, runs, max(1, min(repeats, MAX_REPEATS)), renew)


def warm_up(contender: Contender, feeds: Feeds, now: Callable[[], int], seconds: float) -> float:
    """Run until latencies no longer fall: at least three runs, then until the slope is noise.

    Returns:
        Wall-clock nanoseconds per run, with all overhead.
    """
    contender.warm(feeds)
    start = now()
    end = start + int(seconds * 1e9)
    seen = list(contender.time(WARM_RUNS).ns)
    taken_ns = (now() - start) / WARM_RUNS
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
