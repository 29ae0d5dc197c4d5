"""Records of the search of `tune`: choices that were tried, and the time that is left."""

from __future__ import annotations

import time
from dataclasses import dataclass

from trimtab.core.context import Ratio

from .candidates import Choice


@dataclass(frozen=True)
class Trial:
    """Choice that was tried.

    Attributes:
        choice: rule and its sites.
        sites: number of sites.
        screened: rough speed-up when all were measured side by side; None where it was not.
        ratio: speed-up over the best so far; None where it was not confirmed.
        verdict: kept, or the reason why not.
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
    """Time limit in seconds, which starts, on the monotonic clock, when `of` creates it."""

    seconds: float
    start: float

    @classmethod
    def of(cls, seconds: float) -> TrialBudget:
        """Start a budget of so many seconds now."""
        return cls(seconds, time.monotonic())

    @property
    def left(self) -> float:
        """Remaining seconds, at least zero."""
        return max(0.0, self.seconds - (time.monotonic() - self.start))
