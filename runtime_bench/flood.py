"""Throughput: many callers of one session at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trimtab.core.session import Feeds

from .arm import Runs
from .arms import involuntary_switches

#: Calls of each caller in one burst, so that starting and joining weigh little.
CALLS = 8


class Flood:
    """Callers in threads; a run is a burst of `CALLS` inferences from each of them.

    Its time is told per inference, the inverse of throughput, so that the statistics of latency
    serve for it as well.

    Args:
        session: shared by all callers; onnxruntime sessions may be run from many threads.
        feeds: of every call.
        concurrency: callers at once.
    """

    def __init__(self, session: Any, feeds: Feeds, concurrency: int) -> None:
        self.session, self.feeds, self.concurrency = session, dict(feeds), concurrency
        self.names = [output.name for output in session.get_outputs()]
        self.pool = ThreadPoolExecutor(concurrency)

    def time(self, bursts: int) -> Runs:
        """Nanoseconds per inference of each burst."""
        ns, switches = [], []
        for _ in range(bursts):
            before, start = involuntary_switches(), time.perf_counter_ns()
            for future in [self.pool.submit(self._call) for _ in range(self.concurrency)]:
                future.result()
            ns.append((time.perf_counter_ns() - start) // (CALLS * self.concurrency))
            switches.append(involuntary_switches() - before)
        return Runs(tuple(ns), tuple(switches))

    def close(self) -> None:
        """End the callers."""
        self.pool.shutdown()

    def _call(self) -> None:
        for _ in range(CALLS):
            self.session.run(self.names, self.feeds)
