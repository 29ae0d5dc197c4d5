"""Throughput: many concurrent callers of one session."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ..timing import Runs, involuntary_switches
from .caller import Caller

#: Calls of each caller in one burst, so that starting and joining take little of it.
CALLS = 8


class ThroughputRunner:
    """Callers in threads, usually of one session; a run is a burst of `CALLS` inferences of each.

    Its time is given per inference, the inverse of throughput, so that the statistics of latency
    apply to it as well.
    """

    def __init__(self, callers: Sequence[Caller]) -> None:
        self.callers = callers
        self.pool = ThreadPoolExecutor(len(callers))

    def time(self, bursts: int) -> Runs:
        """Time bursts; nanoseconds per inference of each."""
        ns, switches = [], []
        for _ in range(bursts):
            before, start = involuntary_switches(), time.perf_counter_ns()
            for future in [self.pool.submit(_call, caller) for caller in self.callers]:
                future.result()
            ns.append((time.perf_counter_ns() - start) // (CALLS * len(self.callers)))
            switches.append(involuntary_switches() - before)
        return Runs(tuple(ns), tuple(switches))

    def close(self) -> None:
        """Stop the threads."""
        self.pool.shutdown()


def _call(caller: Caller) -> None:
    for _ in range(CALLS):
        caller.run()
