"""Graceful handling of Ctrl-C: training ends between two steps, when weights are consistent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


class Interrupts:
    """Context in which the first Ctrl-C sets `requested`, and the second raises as usual."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.requested = say, False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        # Signals reach the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *failure: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _request(self, *_: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self.say("ending after this step; again to end at once")
