"""The clock that passes use, on top of the bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from trimtab.core.context import Ratio
from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.core.progress import Silent

from ..measure.values import Comparison
from ..stats.e_process import medians_side_by_side
from .bench import Bench, LocalBench, Timing

#: `Ratio` promises a 95% interval.
ALPHA = 0.05


def ratio_of(found: Comparison, seconds: float) -> Ratio:
    """Return the ratio of a comparison that ran to its end.

    Raises:
        RunError: a model was refused, crashed or hung, or there was no time for a block.
    """
    if found.check().interrupted:
        raise KeyboardInterrupt  # a pass cannot go on with half a measurement
    if not found.blocks:
        raise RunError(
            f"one comparison takes longer than {seconds:g} s",
            where=found.candidate.model,
            hint="Give more time, or smaller inputs",
        )
    return Ratio(found.ratio, found.low, found.high)


@dataclass(frozen=True)
class BenchClock:
    """Clock of passes that decide by time.

    Attributes:
        in_process: run sessions in this process: a pass measures many small models, and starting
            two processes for each costs more than measuring. A crash ends the whole process.
        seed: random seed of the order of blocks (default 0).
        bench: bench that measures.
    """

    in_process: bool = True
    seed: int = 0
    bench: Bench = field(default_factory=LocalBench)

    def compare(
        self,
        base: Model,
        candidate: Model,
        feeds: Feeds,
        config: SessionConfig,
        seconds: float,
        decide: tuple[float, ...] = (),
    ) -> Ratio:
        """Measure the candidate's speed-up over the base; for errors see `ratio_of`."""
        how = replace(self._timing(config, seconds), decide=decide)
        return ratio_of(self.bench.compare(base, [candidate], feeds, how, Silent())[0], seconds)

    def median_ns(
        self, models: Sequence[Model], feeds: Feeds, config: SessionConfig, seconds: float
    ) -> list[float]:
        """Measure the median latency of each model in nanoseconds, all interleaved in one run.

        Slowdowns that all models of a round share are removed, so that their ratios hold.

        Raises:
            RunError: a model was refused, crashed or hung.
        """
        found = self.bench.measure(models, feeds, self._timing(config, seconds), Silent())
        if any(m.interrupted for m in found):
            raise KeyboardInterrupt  # a pass cannot go on with half a measurement
        return medians_side_by_side([m.samples_ns for m in found])

    def machine_class(self) -> str:
        """Return the class of the machine that measures."""
        return self.bench.environment().machine_class()

    def _timing(self, config: SessionConfig, seconds: float) -> Timing:
        return Timing(config, seconds, alpha=ALPHA, seed=self.seed, in_process=self.in_process)
