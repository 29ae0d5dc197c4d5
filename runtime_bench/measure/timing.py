"""The timing loop that all contenders share."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from .contender import Runs

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]


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
