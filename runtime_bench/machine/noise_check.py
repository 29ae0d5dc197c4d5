"""The noise check: disturbances during a measurement, and whether they make it unreliable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.core.ort.session import SessionConfig

from .gpu import GpuState, disturbances
from .system import number_after, read_text


@dataclass(frozen=True)
class Snapshot:
    """Counters that only grow; the difference of two shows what happened in between.

    Attributes:
        at_ns: monotonic time.
        steal: ticks of all CPUs that the hypervisor gave to others.
        ticks: all ticks of all CPUs.
        pressure_us: time in which some task waited for a CPU (PSI); None if unknown.
        throttled: periods in which the cgroup's quota stopped this process; None if unknown.
        gpu: the GPU that runs the models; None for the CPU.
        idle: ticks in which CPUs had nothing to do.
    """

    at_ns: int
    steal: int = 0
    ticks: int = 0
    pressure_us: int | None = None
    throttled: int | None = None
    gpu: GpuState | None = None
    idle: int = 0

    @classmethod
    def now(cls, config: SessionConfig | None = None) -> Snapshot:
        """Read the counters that this system has, and the state of the GPU that sessions use."""
        gpu = GpuState.of(config) if config is not None else None
        fields = [int(f) for f in read_text("/proc/stat").partition("\n")[0].split()[1:9]]
        steal = fields[7] if len(fields) > 7 else 0
        some = read_text("/proc/pressure/cpu").partition("\n")[0]
        pressure = number_after(some.replace("=", " "), "total")
        throttled = number_after(read_text("/sys/fs/cgroup/cpu.stat"), "nr_throttled")
        idle, ticks = sum(fields[3:5]), sum(fields)
        return cls(time.monotonic_ns(), steal, ticks, pressure, throttled, gpu, idle)


@dataclass(frozen=True)
class NoiseCheck:
    """Result of the noise check.

    Attributes:
        fit: true where absolute latencies can be trusted.
        reasons: one sentence for each disturbance, with its figure and what to do.
        facts: the figures: steal and pressure as shares of time, throttled periods, involuntary
            switches per run, the canary's 90th percentile over its median; of a GPU the clock in
            MHz, the temperature and the share of time in which the clock was slowed.
    """

    fit: bool = True
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {"fit": self.fit, "reasons": list(self.reasons), "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> NoiseCheck:
        """Read the noise check that `to_json` wrote."""
        return cls(value["fit"], tuple(value["reasons"]), value["facts"])


#: Fact, its largest value on a quiet machine, message, advice.
LIMITS: tuple[tuple[str, float, str, str], ...] = (
    ("steal", 0.02, "the hypervisor took {:.1%} of the CPU time", "use a machine of your own"),
    ("pressure", 0.20, "tasks waited for a CPU {:.0%} of the time", "stop other work here"),
    ("throttled", 0, "the cgroup's quota stopped us {:.0f} times", "raise it or use fewer threads"),
    ("switches", 0.05, "{:.2f} involuntary switches per run", "stop other work here"),
    ("canary", 1.5, "a constant kernel varied {:.2f} fold", "stop other work, fix the clock rate"),
)


def check_noise(
    before: Snapshot,
    after: Snapshot,
    *,
    canary_ns: Sequence[float] = (),
    switches: Sequence[int] = (),
) -> NoiseCheck:
    """Check for disturbances between two snapshots.

    The canary's times are one per block, the involuntary context switches one count per run.
    """
    facts: dict[str, float] = {}
    if after.ticks > before.ticks:
        facts["steal"] = (after.steal - before.steal) / (after.ticks - before.ticks)
    if before.pressure_us is not None and after.pressure_us is not None:
        wall_us = max(1.0, (after.at_ns - before.at_ns) / 1000)
        facts["pressure"] = (after.pressure_us - before.pressure_us) / wall_us
    if before.throttled is not None and after.throttled is not None:
        facts["throttled"] = after.throttled - before.throttled
    if len(switches):
        facts["switches"] = float(np.mean(switches))
    if len(canary_ns) >= 5:
        facts["canary"] = float(np.quantile(canary_ns, 0.9) / np.median(canary_ns))
    more, slowed = disturbances(before.gpu, after.gpu, after.at_ns - before.at_ns)
    facts |= more
    reasons = tuple(
        f"{text.format(facts[name])} (at most {limit:g}): {advice}"
        for name, limit, text, advice in LIMITS
        if facts.get(name, 0) > limit
    ) + tuple(slowed)
    return NoiseCheck(not reasons, reasons, facts)


_SQUARE = np.arange(32 * 32, dtype=np.int64).reshape(32, 32)


def canary(now: Callable[[], int] = time.perf_counter_ns) -> int:
    """Time a constant kernel in nanoseconds, the best of three: if it varies, the machine does.

    It multiplies integers, since a float product would use BLAS, whose threads spin afterwards and
    take CPUs from what is measured.
    """
    times = []
    for _ in range(3):
        start = now()
        _SQUARE @ _SQUARE
        times.append(now() - start)
    return min(times)
