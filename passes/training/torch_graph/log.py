"""Log of a training run: loss, validation, rate and remaining time."""

from __future__ import annotations

import time

from trimtab.core.progress import Progress

#: Seconds between two lines.
_SECONDS = 60.0


class TrainingLog:
    """Lines to `progress` about the steps since the last line; `size` is the batch size."""

    def __init__(self, progress: Progress, size: int) -> None:
        self.progress, self.size = progress, size
        self.start(0)

    def start(self, step: int, done: float = 0.0) -> None:
        """Start the clock at a step, when that share of the training was done."""
        self.begin = self.last = time.monotonic()
        self.first, self.done, self.total, self.count = step, done, 0.0, 0

    def add(self, loss: float) -> None:
        """Add the loss of a step."""
        self.total, self.count = self.total + loss, self.count + 1

    def report_progress(self, step: int, done: float, rate: float) -> None:
        """Report loss, rate and remaining time, once a minute."""
        if time.monotonic() - self.last >= _SECONDS:
            self.progress.say(f"step {step}: {self._pace(step, done, rate)}")

    def report_validation(
        self, step: int, value: float, done: float, rate: float, *, better: bool
    ) -> None:
        """Report a validation loss."""
        best = " (best)" if better else ""
        pace = f", {self._pace(step, done, rate)}" if self.count else ""
        self.progress.say(f"step {step}: validation {value:.5g}{best}{pace}")

    def _pace(self, step: int, done: float, rate: float) -> str:
        now = time.monotonic()
        self.last = now
        each = (step - self.first) * self.size / max(now - self.begin, 1e-9)
        loss = f"loss {self.total / self.count:.5g}, " if self.count else ""
        self.total, self.count = 0.0, 0
        here = done - self.done
        left = (now - self.begin) / here * (1 - done) if here > 0 else 0.0
        time_left = f", {left / 60:.1f} min left" if left > 0 else ""
        return f"{loss}rate {rate:.2g}, {each:.0f} items/s{time_left}"
