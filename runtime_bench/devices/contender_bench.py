"""Base of benches that bring contenders of their own to the measurements of this machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from trimtab.core.errors import RunError
from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.core.progress import Progress

from ..bench.bench import TextAndJson, Timing, compare_by, measure_by
from ..machine.environment import Environment
from ..machine.noise_check import NoiseCheck
from ..measure.compare import MakeContender
from ..measure.contenders.contender import Contender
from ..measure.startup import StartupCosts
from ..measure.subject import Models, Startable, Timed
from ..measure.values import Comparison, Measurement
from .base import Closeable


class ContenderBench(Closeable, ABC):
    """Bench whose contenders run elsewhere, while this machine orders the blocks.

    Class attributes:
        no_costs: why load time and memory are not measured there.
        no_diagnosis: why the graph that runs there is not known.
        instead: what to give instead of `--on` for a diagnosis.
    """

    no_costs: ClassVar[str]
    no_diagnosis: ClassVar[str]
    instead: ClassVar[str]
    device: Any

    @abstractmethod
    def environment(self) -> Environment:
        """Describe the device."""

    @abstractmethod
    def _contender(self, source: Any, name: str, config: SessionConfig, how: Timing) -> Contender:
        """Return a contender on the device."""

    def compare(
        self,
        base: Timed,
        candidates: Sequence[Timed],
        feeds: Feeds,
        how: Timing,
        progress: Progress,
    ) -> list[Comparison]:
        """See `Bench`."""
        found = compare_by(how, base, candidates, feeds, progress, self._maker(how))
        return [
            replace(c, base=self._of_device(c.base), candidate=self._of_device(c.candidate))
            for c in found
        ]

    def measure(
        self, models: Sequence[Timed], feeds: Feeds, how: Timing, progress: Progress
    ) -> list[Measurement]:
        """See `Bench`."""
        found = measure_by(how, models, feeds, progress, self._maker(how))
        return [self._of_device(m) for m in found]

    def startup_costs(
        self, model: Startable, feeds: Feeds, how: Timing, processes: int, *, arena: bool
    ) -> tuple[StartupCosts, NoiseCheck]:
        """Raise a RunError: only trimtab itself measures them."""
        del model, feeds, how, processes, arena
        raise RunError(self.no_costs, where=str(self.device), hint="Give --no-card")

    @property
    def unmeasured(self) -> dict[str, str]:
        """See `Bench`."""
        return dict.fromkeys(("start", "memory"), self.no_costs)

    def diagnosis(
        self, models: Models, feeds: Feeds, how: Timing, *, profiled: bool
    ) -> TextAndJson:
        """Raise a RunError: only trimtab itself sees the graph that runs."""
        del models, feeds, how, profiled
        raise RunError(
            self.no_diagnosis, where=str(self.device), hint=f"Give {self.instead} instead of --on"
        )

    def _maker(self, how: Timing) -> MakeContender:
        return lambda source, name, config: self._contender(source, name, config, how)

    def _of_device(self, found: Measurement) -> Measurement:
        """Return the measurement with the device's environment; its noise is not known."""
        return replace(found, environment=self.environment(), noise_check=NoiseCheck())
