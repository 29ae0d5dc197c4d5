"""What a pass is given beside the model: target, data, progress, seed, a clock.

The clock is a protocol, so that a pass that decides by time never imports the bench: the face of
the package injects the real one, tests inject a fake.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from .dataset import Dataset
from .errors import DataError, OptionError
from .memo import Memo
from .model import Model
from .ort.session import Feeds, SessionConfig
from .progress import Progress, Silent
from .runner import Runner
from .target import Target, timing_class


@dataclass(frozen=True)
class Ratio:
    """How much faster a candidate is than its base: time of the base over its own.

    Attributes:
        value: estimate of the ratio of median latencies; above 1 is faster.
        low: lower end of the 95% interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def faster(self) -> bool:
        """Faster beyond the interval."""
        return self.low > 1

    @property
    def slower(self) -> bool:
        """Slower beyond the interval."""
        return self.high < 1

    def __str__(self) -> str:
        if math.isnan(self.value):  # stopped before its first block
            return "not measured"
        if self.low == self.value == self.high:  # predicted: there is nothing to take one from
            return f"{self.value:.2f}x"
        return f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"


class Clock(Protocol):
    """Measures models against each other on the target."""

    def compare(
        self,
        base: Model,
        candidate: Model,
        feeds: Feeds,
        config: SessionConfig,
        seconds: float,
    ) -> Ratio:
        """The candidate's speed-up over the base, both measured interleaved in one run."""
        ...

    def median_ns(
        self, models: Sequence[Model], feeds: Feeds, config: SessionConfig, seconds: float
    ) -> list[float]:
        """Median latency of each model in nanoseconds, all measured interleaved in one run."""
        ...


@runtime_checkable
class MachineClock(Protocol):
    """Clock that names the machine it measures on, which may be another than this one."""

    def machine_class(self) -> str:
        """Return a name that machines of other absolute times do not have."""
        ...


@dataclass(frozen=True)
class Context:
    """The surroundings of a pass.

    Attributes:
        target: where the model will run.
        data: calibration data for the passes that want some and name none themselves.
        progress: where long work tells how far it is.
        seed: of everything random.
        clock: measures, for the passes that decide by time; None where nothing can be measured.
        original: the model that a recipe started from, for the passes that learn from it.
        runner: where candidates run when their quality is judged; in this process where None.
        memo: what passes have computed or measured; shared by copies that `replace` makes.
    """

    target: Target = field(default_factory=Target.detect)
    data: Dataset | None = None
    progress: Progress = field(default_factory=Silent)
    seed: int = 0
    clock: Clock | None = None
    original: Model | None = None
    runner: Runner | None = None
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)

    def dataset(self, named: Dataset | None, model: Model, *, purpose: str) -> Dataset:
        """The data that a pass names itself, else the context's, checked against the model.

        Raises:
            DataError: there are none, or they do not fit.
        """
        data = self.data if named is None else named
        if data is None:
            raise DataError(f"{purpose} needs data", hint="Give --data, or the field `data`")
        return data.bind(model)

    def need_clock(self, purpose: str) -> Clock:
        """The clock.

        Raises:
            OptionError: there is none.
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
