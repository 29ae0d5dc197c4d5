"""An arm in this process, and the timing loop that all arms share."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.model import Model
from trimtab.core.session import Feeds, SessionConfig, build_session, runtime_errors

from .arm import Runs
from .pacing import WARM_RUNS

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]


def involuntary_switches() -> int:
    """How often the system took the CPU from this process so far; 0 where it does not tell."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def time_runs(session: Any, feeds: Feeds, runs: int) -> Runs:
    """Time `session.run` on the feeds, without garbage collection and with nothing else inside."""
    names = [output.name for output in session.get_outputs()]
    inputs = dict(feeds)
    return time_calls(lambda: session.run(names, inputs), runs)


def time_calls(call: Callable[[], object], runs: int) -> Runs:
    """Time a call that many times in a row; its result is freed outside of the timed part."""
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


def quiet(config: SessionConfig) -> SessionConfig:
    """The configuration with idle threads that do not spin.

    Two sessions whose threads spin steal each other's CPUs: with two threads each, alternating runs
    had a 95th percentile of 25 ms with spinning and 1.6 ms without.
    """
    return replace(config, spinning=False)


class InProcessArm:
    """A session in this process: no start-up cost, but a crash takes all down.

    Args:
        model: a model or file.
        config: how to build the session; spinning is turned off.
        name: for messages.
    """

    def __init__(self, model: Model | Path, config: SessionConfig, name: str = "") -> None:
        self.name = name or str(model)
        self.host = None  # all live in this process
        self.model, self.config = model, quiet(config)
        self.session: Any = None
        self.feeds: Feeds = {}

    def warm(self, feeds: Feeds) -> None:
        """Make the session, take the feeds, run once.

        Raises:
            RunError: onnxruntime refuses the model or the feeds, or fails.
        """
        self.feeds = dict(feeds)
        self.session = build_session(self.model, self.config)
        self.time(1)

    def renew(self) -> None:
        """Build the session anew, and run it a few times.

        Raises:
            RunError: onnxruntime refuses or fails.
        """
        self.session = None  # its memory is free for the new one
        self.session = build_session(self.model, self.config)
        self.time(WARM_RUNS)

    def time(self, runs: int) -> Runs:
        """Run that many times in a row.

        Raises:
            RunError: onnxruntime fails.
        """
        with runtime_errors(self.name):
            return time_runs(self.session, self.feeds, runs)

    def close(self) -> None:
        """Free the session."""
        self.session = None
        self.feeds = {}
