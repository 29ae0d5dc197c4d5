"""Time budget of a search, and the part that is left of it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

from trimtab.core.errors import OptionError
from trimtab.core.target import usable_cpus
from trimtab.passes.base import Pass

from .alarm import alarm

#: Share of the time that is kept for the last comparison, and for evidence, files and report.
KEPT = 0.25
#: Of that the share for evidence, files and report, with its bounds in seconds.
ENDING, LEAST_ENDING, MOST_ENDING = 0.1, 1.0, 20.0
#: Room to measure a candidate that is made: so many seconds, or this share of the time.
MEASURED_EACH, EACH = 6.0, 0.05
#: Most of the time that slow starts and the test split may claim.
MOST_EXTRA = 0.33
#: Share of what is left that a round of measurement may take.
MEASURING = 0.6

#: Time of a pass, in evaluations of the rows that it looks at; rough, from networks of the docs.
PASS_ROUNDS = {
    "quantize-static on data": 4.0,
    "quantize-auto on data": 12.0,
    "prune-channels on data": 20.0,
    "half on data": 2.0,
    "compress-weights on data": 8.0,
}
#: Most rows that a pass looks at, and evaluations of one row that any other pass takes as long as.
MOST_ROWS, USUAL_ROWS = 256, 20


def timed_as(step: Pass) -> str:
    """Return the kind of a pass whose runs take alike: its name, and whether it looks at data."""
    return f"{step.name()}{' on data' if getattr(step, 'data', None) is not None else ''}"


def pass_seconds(step: Pass, item_s: float, calibration: int) -> float:
    """Predict the seconds of a pass from those of evaluating the original on one item."""
    rounds = PASS_ROUNDS.get(timed_as(step))
    return item_s * (USUAL_ROWS if rounds is None else rounds * min(MOST_ROWS, calibration))


@dataclass(frozen=True)
class TimeBudget:
    """Limits of a search; unlimited where None.

    Attributes:
        seconds: time of the whole search, training included.
        train_seconds: time of training; no training where None.
        trials: number of candidates that may be made.
        threads: threads of training.
        started: start of the command, by the monotonic clock, from which `seconds` count; the
            start of the search where None.
    """

    seconds: float | None = None
    train_seconds: float | None = None
    trials: int | None = None
    threads: int = 0
    started: float | None = None

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
        overhead_s: most seconds that a measurement took before its first block, or beyond those it
            was given: beside other work processes start slowly.
        judging_s: seconds that the test split takes in the end.
    """

    budget: TimeBudget
    start: float
    trials: int = 0
    overhead_s: float = 0.0
    judging_s: float = 0.0

    @property
    def gone_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def left_s(self) -> float:
        """Seconds left for all but the last comparison; infinite without a limit."""
        if self.budget.seconds is None:
            return float("inf")
        return (1 - KEPT) * self.budget.seconds - self._extra_s - self.gone_s

    @property
    def _extra_s(self) -> float:
        """Seconds of the end that do not go with the limit, at most a third of it."""
        total = self.budget.seconds or 0.0
        return min(MOST_EXTRA * total, self.overhead_s + self.judging_s)

    @property
    def confirming_s(self) -> float | None:
        """Seconds left for the last comparison; None without a limit."""
        total = self.budget.seconds
        left = None if total is None else total - self.ending_s - self.gone_s
        return None if left is None else left - self.overhead_s

    @property
    def ending_s(self) -> float:
        """Seconds that are kept for evidence, files and report; 0 without a limit."""
        total = self.budget.seconds
        return 0.0 if total is None else min(MOST_ENDING, max(LEAST_ENDING, ENDING * total))

    @property
    def evidence_s(self) -> float:
        """Seconds left for evidence, so that files and report are written in time."""
        total = self.budget.seconds
        left = float("inf") if total is None else total - self.ending_s / 2 - self.gone_s
        return max(0.0, left)

    @property
    def over(self) -> str | None:
        """Reason why no further candidate may be made; None where one may."""
        if self.budget.trials is not None and self.trials >= self.budget.trials:
            return f"{self.trials} trials are used up"
        if self.left_s <= 0:
            return f"the time of {self.budget.seconds:g} s is used up"
        return None

    def making_s(self, unmeasured: int) -> float:
        """Return the seconds left for making a candidate, with room to measure it and others."""
        if self.budget.seconds is None:
            return float("inf")
        each = min(MEASURED_EACH, EACH * self.budget.seconds)
        return self.left_s - each * (unmeasured + 1)

    def measuring_s(self, graphs: int, each: float) -> float:
        """Return the seconds for measuring so many graphs."""
        return max(1.0, min(each * graphs, MEASURING * self.left_s - self.overhead_s))

    def measured(self, given_s: float, took_s: float, starting_s: float) -> None:
        """Learn from a measurement that was given some time, took another, and started late."""
        self.overhead_s = max(self.overhead_s, took_s - given_s, starting_s)

    def alarm(self, seconds: float | None = None) -> AbstractContextManager[None]:
        """Return a context that ends what runs in it after so many seconds, see `alarm`.

        All that is left for making where None.
        """
        return alarm(self.left_s if seconds is None else seconds)
