"""Several devices as one bench: a claim about a model must hold on each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trimtab.core.ort.session import Feeds
from trimtab.core.progress import Progress
from trimtab.core.target import Target, common_target

from .bench.bench import Bench, TextAndJson, Timing
from .machine.environment import Environment
from .machine.noise_check import NoiseCheck
from .measure.startup import StartupCosts
from .measure.subject import Models, Startable, Timed
from .measure.values import Comparison, Measurement
from .stats.verdict import Verdict


@dataclass(frozen=True)
class MultiDeviceBench:
    """Devices measured one after the other, each with its part of the time and error rate."""

    benches: Mapping[str, Bench]

    @property
    def unmeasured(self) -> Mapping[str, str]:
        """See `Bench`; what one of them does not measure."""
        return {kind: why for b in self.benches.values() for kind, why in b.unmeasured.items()}

    def compare(
        self,
        base: Timed,
        candidates: Sequence[Timed],
        feeds: Feeds,
        how: Timing,
        progress: Progress,
    ) -> list[Comparison]:
        """See `Bench`; for each candidate the device with the least gain, and all of them."""
        part, found = self._part(how), {}
        for name, bench in self.benches.items():
            progress.say(f"on {name}")
            found[name] = bench.compare(base, candidates, feeds, part, progress)
            if any(c.interrupted for c in found[name]):
                break
        whole = len(found) == len(self.benches)
        rows = zip(*found.values(), strict=True)
        return [_least(dict(zip(found, row, strict=True)), how, whole=whole) for row in rows]

    def measure(
        self, models: Sequence[Timed], feeds: Feeds, how: Timing, progress: Progress
    ) -> list[Measurement]:
        """See `Bench`; for each model the device on which it is slowest."""
        rows = []
        for bench in self.benches.values():
            rows.append(bench.measure(models, feeds, self._part(how), progress))
            if any(m.interrupted for m in rows[-1]):
                break
        return [max(same, key=lambda m: m.median_ns or 0.0) for same in zip(*rows, strict=True)]

    def startup_costs(
        self, model: Startable, feeds: Feeds, how: Timing, processes: int, *, arena: bool
    ) -> tuple[StartupCosts, NoiseCheck]:
        """See `Bench`; the device on which the model takes most memory."""
        benches = self.benches.values()
        every = [b.startup_costs(model, feeds, how, processes, arena=arena) for b in benches]
        return max(every, key=lambda pair: pair[0].median_peak_bytes)

    def diagnosis(
        self, models: Models, feeds: Feeds, how: Timing, *, profiled: bool
    ) -> TextAndJson:
        """See `Bench`; on the first device."""
        first = next(iter(self.benches.values()))
        return first.diagnosis(models, feeds, how, profiled=profiled)

    def environment(self) -> Environment:
        """Return the environment of the first device."""
        return next(iter(self.benches.values())).environment()

    def target(self, threads: int | None) -> Target:
        """Return the target that suits all devices; an OptionError if their providers differ."""
        return common_target([bench.target(threads) for bench in self.benches.values()])

    def _part(self, how: Timing) -> Timing:
        count = len(self.benches)
        return replace(how, max_seconds=how.max_seconds / count, alpha=how.alpha / count)


def _least(found: Mapping[str, Comparison], how: Timing, *, whole: bool) -> Comparison:
    """Return the comparison with the least ratio, with an interval for the least true ratio.

    All intervals hold at once, up to the error rate, so the least true ratio lies between the least
    lower end and the least upper end.
    """
    failed = [f"on {name}: {c.error}" for name, c in found.items() if c.error]
    worst = min(found.values(), key=lambda c: -math.inf if math.isnan(c.ratio) else c.ratio)
    return replace(
        worst,
        low=min(c.low for c in found.values()) if whole else 0.0,
        high=min(c.high for c in found.values()) if whole else math.inf,
        verdict=_verdict([c.verdict for c in found.values()]) if whole else "inconclusive",
        alpha=how.alpha,
        interrupted=any(c.interrupted for c in found.values()),
        error="; ".join(failed) or None,
        devices=found,
    )


def _verdict(every: Sequence[Verdict]) -> Verdict:
    """Return "worse" if worse on any device, "better" if better on all."""
    if "worse" in every:
        return "worse"
    if "inconclusive" in every:
        return "inconclusive"
    return "same" if "same" in every else "better"


def machine_classes(bench: Bench) -> str:
    """Return the classes of the machines that measure; equal ones may share measurements."""
    benches = bench.benches.values() if isinstance(bench, MultiDeviceBench) else [bench]
    return " + ".join(sorted({b.environment().machine_class() for b in benches}))
