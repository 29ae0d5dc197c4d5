"""Ctrl-C as a wish that is granted between two steps, when the weights are whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


class Interrupts:
    """While entered, the first Ctrl-C sets `asked`, and the second one raises as usual.

    Attributes:
        asked: whether somebody wants the work to end.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.asked = say, False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        # Signals reach the main thread only; elsewhere nobody can ask.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *failure: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.say("ending after this step; again to end at once")
