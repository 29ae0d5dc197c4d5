"""Waiting until a machine is quiet, and what its other work is at the moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from .noise_check import Snapshot, check_noise
from .system import read_text

#: Longest stretch that has to be quiet, in seconds, and its share of the time to wait.
QUIET_SECONDS, QUIET_SHARE = 60.0, 0.2
#: Seconds between two looks.
LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class QuietWait:
    """Result of waiting for a quiet machine.

    Attributes:
        quiet: true where it was quiet long enough.
        seconds: seconds waited.
        reason: what disturbed it last; empty where nothing did.
    """

    quiet: bool
    seconds: float
    reason: str = ""


def wait_for_quiet(
    seconds: float,
    threads: int = 1,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    look: Callable[[], Snapshot] = Snapshot.now,
) -> QuietWait:
    """Wait for at most so many seconds until a minute, or a fifth of them, was quiet.

    Quiet: nothing that the noise check names, and as many idle CPUs as the model has threads.
    """
    wanted, start = min(QUIET_SECONDS, QUIET_SHARE * seconds), now()
    since, before, reason = start, look(), ""
    while True:
        left = start + seconds - now()
        if now() - since >= wanted:
            return QuietWait(quiet=True, seconds=now() - start)
        if left <= 0:
            return QuietWait(quiet=False, seconds=now() - start, reason=reason)
        sleep(min(LOOK_SECONDS, left, max(0.1, wanted)))
        after = look()
        found = _disturbance(before, after, threads)
        if found:
            since, reason = now(), found
        before = after


def _disturbance(before: Snapshot, after: Snapshot, threads: int) -> str:
    """Return what disturbed a machine between two looks; empty where nothing did."""
    check = check_noise(before, after)
    if not check.fit:
        return check.reasons[0]
    ticks = after.ticks - before.ticks
    idle = _cpus() * (after.idle - before.idle) / ticks if ticks > 0 else float("inf")
    if idle < threads - 0.25:
        return f"{idle:.1f} CPUs were idle, the model has {threads} threads"
    return ""


def _cpus() -> int:
    """Return the CPUs of the machine, which its counters are about."""
    return os.cpu_count() or 1


def other_work() -> str:
    """Return what the last ten seconds say of other work here; empty where they say nothing."""
    words = read_text("/proc/pressure/cpu").partition("\n")[0].replace("=", " ").split()
    waited = float(words[words.index("avg10") + 1]) / 100 if "avg10" in words else 0.0
    if waited > 0.2:
        return f"other work: tasks waited for a CPU {waited:.0%} of the last 10 s"
    load = read_text("/proc/loadavg").split()
    if load and float(load[0]) > _cpus():
        return f"other work: {load[0]} tasks at work on {_cpus()} CPUs in the last minute"
    return ""
