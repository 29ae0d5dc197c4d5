"""Clock of tuning, which stops as soon as faster or slower is beyond doubt.

An interval at the stop is valid at any stop, only wider; what tuning needs is the decision, and the
time that is saved goes to the next candidate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.core.context import Ratio
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.runtime_bench.bench.clock import ALPHA, BenchClock, ratio_of
from trimtab.runtime_bench.measure.compare import compare
from trimtab.runtime_bench.measure.contenders.in_process import InProcessContender
from trimtab.runtime_bench.stats.e_process import PairedTest
from trimtab.runtime_bench.stats.verdict import decide

#: Relative difference that counts as none: small rewrites gain a few per cent.
RESOLUTION = 0.03


def decided(test: PairedTest) -> bool:
    """Return whether there is a verdict, however wide the interval is."""
    return decide(test, alpha=ALPHA, resolution=RESOLUTION) != "inconclusive"


@dataclass(frozen=True)
class DecidingClock(BenchClock):
    """Measures two models until it is decided which is faster, or that neither is."""

    def compare(
        self,
        base: Model,
        candidate: Model,
        feeds: Feeds,
        config: SessionConfig,
        seconds: float,
        decide: tuple[float, ...] = (),
    ) -> Ratio:
        """Return the candidate's speed-up over the base; other ratios are decided as by any clock.

        Raises:
            RunError: a model was refused or failed, or there was no time for a block.
        """
        if decide:
            return super().compare(base, candidate, feeds, config, seconds, decide)
        return _ratio(base, candidate, feeds, config, seconds, seed=self.seed)


class AsConfigured(InProcessContender):
    """A session with its threads spinning where the configuration says so.

    They stop at the end of each run: threads that went on would take the other session's CPUs.
    """

    def __init__(self, model: Model, config: SessionConfig, name: str) -> None:
        super().__init__(model, config, name)
        entries = {**config.config, "session.force_spinning_stop": "1"}
        self.config = replace(config, config=entries) if config.spinning else config


@dataclass(frozen=True)
class SessionClock:
    """Measures one model under two configurations, interleaved; the seed orders the blocks."""

    seed: int = 0

    def compare_configs(
        self,
        model: Model,
        base: SessionConfig,
        candidate: SessionConfig,
        feeds: Feeds,
        seconds: float,
    ) -> Ratio:
        """Measure the speed-up under the candidate over the base; for errors see `ratio_of`."""
        contenders = iter(
            [AsConfigured(model, base, "as it is"), AsConfigured(model, candidate, "changed")]
        )
        # Contenders are made in order, the base first, and here both have the same model.
        return _ratio(
            model,
            model,
            feeds,
            base,
            seconds,
            seed=self.seed,
            make_contender=lambda *_: next(contenders),
        )


def _ratio(
    base: Model,
    candidate: Model,
    feeds: Feeds,
    config: SessionConfig,
    seconds: float,
    *,
    seed: int,
    make_contender: Callable[[Model | Path, str, SessionConfig], InProcessContender] | None = None,
) -> Ratio:
    found = compare(
        base,
        [candidate],
        feeds,
        config=config,
        max_seconds=seconds,
        alpha=ALPHA,
        resolution=RESOLUTION,
        seed=seed,
        in_process=True,
        until=decided,
        make_contender=make_contender,
    )
    return ratio_of(found[0], seconds)
