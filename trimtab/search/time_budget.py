"""Time budget of a search, and the part that is left of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from trimtab.core.errors import OptionError
from trimtab.core.target import usable_cpus

#: Share of the time that is kept for the last comparison.
KEPT = 0.15


@dataclass(frozen=True)
class TimeBudget:
    """Limits of a search; unlimited where None.

    Attributes:
        seconds: time of the whole search, training included.
        train_seconds: time of training; no training where None.
        trials: number of candidates that may be made.
        threads: threads of training.
    """

    seconds: float | None = None
    train_seconds: float | None = None
    trials: int | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("seconds", "train_seconds", "trials"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise OptionError(f"{name} is {value}, must be above 0")
        if self.seconds and self.train_seconds and self.train_seconds >= self.seconds:
            training = f"training for {self.train_seconds:g} s"
            raise OptionError(
                f"{training} does not fit into {self.seconds:g} s of search",
                where="--train and --time",
                hint="Give --time more, or leave it out",
            )

    @property
    def training_threads(self) -> int:
        """Threads of training: part of the recipe, so that it makes the same bytes again."""
        return self.threads or usable_cpus()


#: Former name of `TimeBudget`.
Effort = TimeBudget


@dataclass
class Spent:
    """The part of a time budget that is used up.

    Attributes:
        budget: limits of the search.
        start: start of the search, by the monotonic clock.
        trials: number of candidates made so far.
    """

    budget: TimeBudget
    start: float
    trials: int = 0

    @property
    def left_s(self) -> float:
        """Seconds left for all but the last comparison; infinite without a limit."""
        if self.budget.seconds is None:
            return float("inf")
        return (1 - KEPT) * self.budget.seconds - (time.monotonic() - self.start)

    @property
    def over(self) -> str | None:
        """Reason why no further candidate may be made; None where one may."""
        if self.budget.trials is not None and self.trials >= self.budget.trials:
            return f"{self.trials} trials are used up"
        if self.left_s <= 0:
            return f"the time of {self.budget.seconds:g} s is used up"
        return None

    def measuring_s(self, graphs: int, each: float) -> float:
        """Return the seconds for measuring so many graphs."""
        return max(1.0, min(each * graphs, self.left_s / 2))
