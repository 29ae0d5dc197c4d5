"""Environment in which a pass runs: target, data, progress, seed, clock.

The clock is a protocol, so a pass that decides by time does not import the bench: the command line
and the public functions pass the real one, tests pass a fake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from .batches import items_of
from .dataset import Dataset
from .errors import DataError, OptionError
from .memo import Memo
from .model import Model
from .ort.feeding import FeedSource
from .ort.session import Feeds, SessionConfig
from .progress import Progress, Silent
from .runner import Runner
from .target import Target, timing_class


@dataclass(frozen=True)
class Ratio:
    """Speed-up of a candidate over its base: time of the base over that of the candidate.

    Attributes:
        value: estimated ratio of median latencies; above 1 is faster.
        low: lower end of the 95% interval.
        high: upper end of the 95% interval.
    """

    value: float
    low: float
    high: float

    @property
    def faster(self) -> bool:
        """True where the whole interval is above 1."""
        return self.low > 1

    @property
    def slower(self) -> bool:
        """True where the whole interval is below 1."""
        return self.high < 1

    def __str__(self) -> str:
        if math.isnan(self.value):  # stopped before its first block
            return "not measured"
        if self.low == self.value == self.high:  # predicted, so there is no interval
            return f"{self.value:.2f}x"
        if self.low <= 0 and math.isinf(self.high):
            return f"{self.value:.2f}x (in too few runs to tell)"
        return f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"


class Clock(Protocol):
    """Measurement of models against each other on the target."""

    def compare(
        self,
        base: Model,
        candidate: Model,
        feeds: Feeds,
        config: SessionConfig,
        seconds: float,
        decide: tuple[float, ...] = (),
    ) -> Ratio:
        """Measure the candidate's speed-up over the base, both interleaved in one run.

        Where there are speed-ups to decide, it stops once its interval holds none of them, or is
        narrow.
        """
        ...

    def median_ns(
        self, models: Sequence[Model], feeds: Feeds, config: SessionConfig, seconds: float
    ) -> list[float]:
        """Measure the median latency of each model in nanoseconds, all interleaved in one run."""
        ...


@runtime_checkable
class MachineClock(Protocol):
    """Clock that names the machine it measures on, which may be another than this one."""

    def machine_class(self) -> str:
        """Return a name that machines of other absolute times do not have."""
        ...


def check_seed(seed: int, where: str = "seed") -> int:
    """Return a seed that all generators of random numbers take.

    Raises:
        OptionError: it is negative or has more than 63 bits.
    """
    if not 0 <= seed < 1 << 63:
        raise OptionError(f"{seed} is not a seed", where=where, hint="Give a number from 0 up")
    return seed


@dataclass(frozen=True)
class Context:
    """Environment in which a pass runs.

    Attributes:
        target: machine and execution provider that the model will run on.
        data: calibration data, for passes that need data and have none in a field of their own.
        progress: display of the progress of long work.
        seed: random seed (default 0).
        clock: measurement of latency, for passes that decide by time; None where there is none.
        original: model that the recipe started from, for passes that learn from it.
        runner: runs candidates to evaluate their quality; in this process where None.
        shapes: shapes of inputs by name, where the model leaves them free and there are no data.
        memo: values that passes have computed or measured; copies by `replace` share it.
        trial: the result is a candidate of a search: what passes measure only to tell it, such as
            the time to load, is left out.
    """

    target: Target = field(default_factory=Target.detect)
    data: Dataset | None = None
    progress: Progress = field(default_factory=Silent)
    seed: int = 0
    clock: Clock | None = None
    original: Model | None = None
    runner: Runner | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)
    trial: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def dataset(self, named: Dataset | None, model: Model, *, purpose: str) -> Dataset:
        """Return the data of the pass's own field, else the context's, checked against the model.

        What is read from it is finite: NaN and infinity get into no range, error or weight.

        Raises:
            DataError: there is no data, or it does not fit the model.
        """
        data = self.data if named is None else named
        if data is None:
            raise DataError(f"{purpose} needs data", hint="Give --data, or the field `data`")
        return replace(data.bind(model), finite=True)

    def source(self, model: Model, named: Dataset | None = None) -> FeedSource:
        """Return the source of what the model is fed: data of the pass's own field, else these.

        Raises:
            DataError: the data do not fit the model.
        """
        data = self.data if named is None else named
        if data is None:
            return FeedSource(self.shapes, memo=self.memo)
        return FeedSource(items=items_of(model, data), name=data.spec, memo=self.memo)

    def need_clock(self, purpose: str) -> Clock:
        """Return the clock.

        Raises:
            OptionError: the context has none.
        """
        if self.clock is None:
            raise OptionError(
                f"{purpose} decides by measured time, and this context has no clock",
                hint="Run it through trimtab.run or the command line, or pass Context(clock=...)",
            )
        return self.clock

    def timing_class(self) -> str:
        """Return a name of the machine and settings that absolute times of the clock hold for."""
        clock = self.clock
        machine = clock.machine_class() if isinstance(clock, MachineClock) else ""
        return timing_class(self.target, machine)
