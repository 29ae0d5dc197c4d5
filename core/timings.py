"""Times of a command by stage, for `--timings`.

Stages are the few places that all work goes through: files, data, sessions, runs, passes, checks
and measurements. Each counts the time that no stage within it takes, so that they add up.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
#: Name of the time that no stage takes: imports, options, tables.
REST = "everything else"


@dataclass
class Timings:
    """Seconds and calls by stage, of the main thread.

    Attributes:
        start: start of the command on the monotonic clock, in seconds.
        seconds: seconds of each stage without those of the stages within it.
        calls: times that each stage was entered.
    """

    start: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    _within: list[float] = field(default_factory=list)

    def enter(self) -> float:
        """Begin a stage; return its start."""
        self._within.append(0.0)
        return time.monotonic()

    def leave(self, stage: str, start: float) -> None:
        """End the stage that was entered last."""
        took, inner = time.monotonic() - start, self._within.pop()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + took - inner
        self.calls[stage] = self.calls.get(stage, 0) + 1
        if self._within:
            self._within[-1] += took

    def to_json(self) -> dict[str, Any]:
        """Return the seconds of the command and of each stage, the longest first."""
        total = time.monotonic() - self.start
        known = self.seconds | {REST: max(0.0, total - sum(self.seconds.values()))}
        order = sorted(known, key=lambda stage: -known[stage])
        stages = [
            {"stage": s, "seconds": round(known[s], 3), "calls": self.calls.get(s, 1)}
            for s in order
        ]
        return {"seconds": round(total, 3), "stages": stages}

    def text(self) -> str:
        """Return `to_json` as JSON text."""
        return json.dumps(self.to_json(), indent=1) + "\n"

    def table(self) -> list[str]:
        """Return a line for each stage: seconds, share of the command, calls."""
        found = self.to_json()
        wide = max(len(entry["stage"]) for entry in found["stages"])
        total = found["seconds"] or 1.0
        lines = [f"{'stage':{wide}}  seconds  share  calls"]
        lines += [
            f"{e['stage']:{wide}}  {e['seconds']:7.2f}  {e['seconds'] / total:5.0%}  {e['calls']:5}"
            for e in found["stages"]
        ]
        return [*lines, f"{'in all':{wide}}  {total:7.2f}"]


class _Active:
    """The timings of the running command, where they are asked for."""

    timings: Timings | None = None


@contextmanager
def timed(start: float) -> Iterator[Timings]:
    """Take the times of all stages from here on, of a command that began at `start`."""
    before, _Active.timings = _Active.timings, Timings(start)
    try:
        yield _Active.timings
    finally:
        _Active.timings = before


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count what runs within as a stage of the command."""
    timings = _Active.timings
    if timings is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    start = timings.enter()
    try:
        yield
    finally:
        timings.leave(name, start)


def staged(name: str, items: Iterable[T]) -> Iterator[T]:
    """Yield items; what each takes to come counts as a stage of the command."""
    source = iter(items)
    while True:
        with stage(name):
            try:
                item = next(source)
            except StopIteration:
                return
        yield item
