"""The timing loop that all contenders share; it imports nothing heavy, as workers start often."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Runs:
    """Timed runs of one contender, in order.

    Attributes:
        ns: latency of each.
        switches: involuntary context switches during each; empty if the system does not count them.
    """

    ns: tuple[int, ...]
    switches: tuple[int, ...] = ()

    def after(self, discarded: int) -> Runs:
        """Return the runs without the first ones."""
        return Runs(self.ns[discarded:], self.switches[discarded:])


def involuntary_switches() -> int:
    """Return the involuntary context switches of this process so far; 0 if not counted."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def time_calls(call: Callable[[], object], runs: int) -> Runs:
    """Time a number of consecutive calls; results are freed outside the timed part."""
    clock = time.perf_counter_ns
    ns, switches = [0] * runs, [0] * runs
    collecting = gc.isenabled()
    gc.disable()
    try:
        before = involuntary_switches()
        for i in range(runs):
            start = clock()
            result = call()
            ns[i] = clock() - start
            del result
            after = involuntary_switches()
            switches[i] = after - before
            before = after
    finally:
        if collecting:
            gc.enable()
    return Runs(tuple(ns), tuple(switches))
