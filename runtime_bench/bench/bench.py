"""The bench that takes measurements: this machine, or a device that runs the same code.

All that measures uses a `Bench`, so nothing else needs to know about devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.core.progress import Progress
from trimtab.core.target import Target

from ..doctor.diagnose import diagnose
from ..doctor.report import document, lines
from ..machine.environment import Environment
from ..machine.noise_check import NoiseCheck, Snapshot, check_noise
from ..measure.compare import MakeContender, compare, measure
from ..measure.contenders.subprocess_contender import SubprocessContender
from ..measure.startup import StartupCosts, startup_costs
from ..measure.subject import Models, Startable, Timed, in_memory
from ..measure.values import Comparison, Measurement
from ..stats.e_process import PairedTest
from ..stats.percentiles import percentile_test
from ..stats.verdict import decide, is_decided
from .budgets import Budget, ratio_verdict

#: Lines of a report, and the same as JSON values.
TextAndJson = tuple[Sequence[str], dict[str, Any]]


@dataclass(frozen=True)
class Timing:
    """Duration and confidence of a measurement; see `compare`.

    Attributes:
        max_seconds: time limit of all together.
        alpha: bound on the probability of any wrong verdict.
        resolution: relative difference below which two models count as equal.
        seed: random seed of the order of blocks (default 0).
        in_process: run all sessions in this process.
        concurrency: number of concurrent callers.
        budgets: stop a measurement as soon as these are decided.
        width: stop a comparison once it has a verdict and an interval no wider than this on each
            side, infinity for a verdict alone; by default the resolution.
        decide: stop a comparison once its interval holds none of these ratios, or is as narrow as
            the resolution.
    """

    config: SessionConfig
    max_seconds: float = 30.0
    alpha: float = 0.01
    resolution: float = 0.05
    seed: int = 0
    in_process: bool = False
    concurrency: int = 1
    budgets: tuple[Budget, ...] = ()
    width: float | None = None
    decide: tuple[float, ...] = ()


class Bench(Protocol):
    """A place that takes measurements; for errors see `compare`, `measure`, `startup_costs`."""

    def compare(
        self,
        base: Timed,
        candidates: Sequence[Timed],
        feeds: Feeds,
        how: Timing,
        progress: Progress,
    ) -> list[Comparison]:
        """Compare candidates with a base, interleaved."""

    def measure(
        self, models: Sequence[Timed], feeds: Feeds, how: Timing, progress: Progress
    ) -> list[Measurement]:
        """Measure models side by side, without a verdict."""

    def startup_costs(
        self, model: Startable, feeds: Feeds, how: Timing, processes: int, *, arena: bool
    ) -> tuple[StartupCosts, NoiseCheck]:
        """Measure the startup costs of a model, and check the machine's noise meanwhile."""

    def diagnosis(
        self, models: Models, feeds: Feeds, how: Timing, *, profiled: bool
    ) -> TextAndJson:
        """Diagnose why a model is slow there; its baseline follows it, if it has one."""

    def environment(self) -> Environment:
        """Describe the machine that measures."""

    def target(self, threads: int | None) -> Target:
        """Describe that machine as a target of optimization."""

    @property
    def unmeasured(self) -> Mapping[str, str]:
        """Kinds of budgets that are not measured there, each with the reason."""


class LocalBench:
    """This machine."""

    unmeasured: Mapping[str, str] = MappingProxyType({})

    def compare(
        self,
        base: Timed,
        candidates: Sequence[Timed],
        feeds: Feeds,
        how: Timing,
        progress: Progress,
    ) -> list[Comparison]:
        """See `Bench`."""
        return compare_by(how, base, candidates, feeds, progress, _callers(how))

    def measure(
        self, models: Sequence[Timed], feeds: Feeds, how: Timing, progress: Progress
    ) -> list[Measurement]:
        """See `Bench`."""
        return measure_by(how, models, feeds, progress, _callers(how))

    def startup_costs(
        self, model: Startable, feeds: Feeds, how: Timing, processes: int, *, arena: bool
    ) -> tuple[StartupCosts, NoiseCheck]:
        """See `Bench`."""
        before = Snapshot.now(how.config)
        found = startup_costs(model, feeds, how.config, processes=processes, arena=arena)
        return found, check_noise(before, Snapshot.now(how.config))

    def diagnosis(
        self,
        models: Models,
        feeds: Feeds,
        how: Timing,
        *,
        profiled: bool,
        target: Target | None = None,
    ) -> TextAndJson:
        """See `Bench`; for a target other than this machine, by its preset."""
        model, *others = map(in_memory, models)
        baseline = others[0] if others else None
        found = diagnose(
            model, feeds, how.config, target=target, baseline=baseline, profiled=profiled
        )
        return lines(found), document(found)

    def environment(self) -> Environment:
        """See `Bench`."""
        return Environment.here()

    def target(self, threads: int | None) -> Target:
        """See `Bench`."""
        return Target.detect(threads)


def compare_by(
    how: Timing,
    base: Timed,
    candidates: Sequence[Timed],
    feeds: Feeds,
    progress: Progress,
    make_contender: MakeContender | None,
) -> list[Comparison]:
    """Compare candidates with a base as long and as surely as asked, see `compare`."""
    return compare(
        base,
        candidates,
        feeds,
        config=how.config,
        max_seconds=how.max_seconds,
        alpha=how.alpha,
        resolution=how.resolution,
        seed=how.seed,
        progress=progress,
        in_process=how.in_process,
        until=_decided(how, len(candidates)),
        make_contender=make_contender,
    )


def measure_by(
    how: Timing,
    models: Sequence[Timed],
    feeds: Feeds,
    progress: Progress,
    make_contender: MakeContender | None,
) -> list[Measurement]:
    """Measure models as long as asked, see `measure`."""
    return measure(
        models,
        feeds,
        config=how.config,
        max_seconds=how.max_seconds,
        seed=how.seed,
        progress=progress,
        in_process=how.in_process,
        until=percentiles_decided(how.budgets, how.alpha) if how.budgets else None,
        make_contender=make_contender,
    )


def _callers(how: Timing) -> MakeContender | None:
    if how.concurrency == 1:
        return None
    return lambda model, name, config: SubprocessContender(
        model, config, name, concurrency=how.concurrency
    )


def _decided(how: Timing, candidates: int) -> Callable[[PairedTest], bool] | None:
    """Return the rule that stops at a finite interval, when all budgets are decided.

    Where a width is given it stops at a verdict, even for kept sessions, and an interval of it,
    where ratios are to be decided at an interval that holds none of them or is as narrow as the
    resolution; any other has no such rule.
    """
    if how.decide:
        return partial(_ratios_decided, how=how, alpha=how.alpha / candidates)
    if not how.budgets and how.width is None:
        return None
    widest = math.inf if how.width is None else 2 * math.log1p(how.width)
    alpha = how.alpha if how.budgets else how.alpha / candidates

    def decided(test: PairedTest) -> bool:
        known: list[str] = [ratio_verdict(test, b, alpha, how.resolution) for b in how.budgets]
        if not how.budgets:
            known = [decide(test, alpha=alpha, resolution=how.resolution, renewed=False)]
        low, high = test.interval(alpha)
        bounded = math.isfinite(low) and math.isfinite(high)
        return "inconclusive" not in known and bounded and high - low <= widest

    return decided


def _ratios_decided(test: PairedTest, how: Timing, alpha: float) -> bool:
    low, high = test.interval(alpha)
    bounded = math.isfinite(low) and math.isfinite(high)
    if bounded and not any(low <= math.log(ratio) <= high for ratio in how.decide):
        return True
    return is_decided(test, alpha=alpha, resolution=how.resolution, renewed=False)


def percentiles_decided(
    budgets: Sequence[Budget], alpha: float
) -> Callable[[Sequence[Sequence[int]]], bool]:
    """Return the rule that stops when a model's runs decide all its percentile budgets.

    It looks again only after the runs have grown by a tenth, since a look reads all of them.
    """
    next_look = 0

    def decided(samples: Sequence[Sequence[int]]) -> bool:
        nonlocal next_look
        runs = samples[0]
        if len(runs) < next_look:
            return False
        next_look = len(runs) + len(runs) // 10 + 1
        return all(
            percentile_test(runs, b.limit, quantile=b.quantile, alpha=alpha).verdict != "open"
            for b in budgets
        )

    return decided
