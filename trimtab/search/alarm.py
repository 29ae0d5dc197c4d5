"""An alarm that ends work which takes too long, so that a time limit is one."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

#: Seconds after which the alarm rings again, where something caught the first.
AGAIN = 1.0


class OutOfTime(BaseException):
    """Time is used up in the middle of some work.

    Like KeyboardInterrupt it is not an `Exception`: what handles failures of a pass must not take
    it for one.
    """


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """End what runs inside by `OutOfTime` after so many seconds; at once where none are left.

    It rings in the main thread of systems with interval timers; elsewhere work runs to its end.

    Raises:
        OutOfTime: the time is used up.
    """
    if seconds <= 0:
        raise OutOfTime
    main = threading.current_thread() is threading.main_thread()
    if math.isinf(seconds) or not main or not hasattr(signal, "setitimer"):
        yield
        return
    before, start = signal.signal(signal.SIGALRM, _ring), time.monotonic()
    others, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if others:  # somebody else's alarm, as that of a test runner, goes on
            left = max(0.001, others - (time.monotonic() - start))
            signal.setitimer(signal.ITIMER_REAL, left, interval)


def _ring(_signal: int, _frame: FrameType | None) -> None:
    raise OutOfTime
