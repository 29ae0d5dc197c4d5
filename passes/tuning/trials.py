"""What the search of `tune` keeps: each choice that was tried, and the time that is left."""

from __future__ import annotations

import time
from dataclasses import dataclass

from trimtab.core.context import Ratio

from .candidates import Choice


@dataclass(frozen=True)
class Trial:
    """A choice that was tried.

    Attributes:
        choice: the rule and its sites.
        sites: how many there are.
        screened: rough speed-up when all were measured side by side; None where it was not.
        ratio: speed-up over the best so far; None where it was not confirmed.
        verdict: what became of it.
    """

    choice: Choice
    sites: int
    screened: float | None
    ratio: Ratio | None
    verdict: str

    def __str__(self) -> str:
        rough = f", screened {self.screened:.2f}x" if self.screened else ""
        measured = f", measured {self.ratio}" if self.ratio else ""
        return f"{self.sites} site{'s' * (self.sites != 1)}{rough}{measured}: {self.verdict}"


@dataclass
class TrialBudget:
    """Time that runs out.

    Attributes:
        seconds: all of it.
        start: when it began.
    """

    seconds: float
    start: float

    @classmethod
    def of(cls, seconds: float) -> TrialBudget:
        """It begins now."""
        return cls(seconds, time.monotonic())

    @property
    def left(self) -> float:
        """Seconds that are left, zero at the least."""
        return max(0.0, self.seconds - (time.monotonic() - self.start))
