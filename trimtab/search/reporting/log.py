"""Log of a search: each decision with its evidence, for `result.json` and as lines for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.core.progress import Progress

from ...report.plain_json import finite
from ..result import Result

#: Called after each decision with it and with all results so far: a live table draws from these.
Watch = Callable[[dict[str, Any], Sequence[Result]], None]


@dataclass
class Log:
    """Decisions in order.

    Attributes:
        progress: progress that prints each as a line.
        watch: callback that gets each instead.
        start: start of the search, by the monotonic clock.
        entries: dictionaries of `at_s`, `stage`, `what` and `evidence`.
    """

    progress: Progress
    watch: Watch | None = None
    start: float = field(default_factory=time.monotonic)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def note(self, stage: str, what: str, results: Sequence[Result] = (), **evidence: Any) -> None:
        """Log a decision."""
        known = {k: finite(v) for k, v in evidence.items() if v is not None}
        at_s = round(self.seconds, 1)
        entry = {"at_s": at_s, "stage": stage, "what": what, "evidence": known}
        self.entries.append(entry)
        if self.watch is None:
            self.progress.say(f"[{at_s:.0f} s] {what}")
        else:
            self.watch(entry, results)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start
