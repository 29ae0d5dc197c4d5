"""What happened while a measurement was taken, and whether that makes its machine unfit."""

from __future__ import annotations

import functools
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
    """Counters that only grow; the difference of two tells what happened between.

    Attributes:
        at_ns: monotonic time.
        steal: share of a CPU second that the hypervisor gave to others, in ticks, all CPUs.
        ticks: all ticks of all CPUs.
        pressure_us: time in which some task waited for a CPU (PSI), None where unknown.
        throttled: periods in which the cgroup's quota stopped us, None where unknown.
        gpu: the GPU that runs the models, None where the CPU does.
    """

    at_ns: int
    steal: int = 0
    ticks: int = 0
    pressure_us: int | None = None
    throttled: int | None = None
    gpu: GpuState | None = None

    @classmethod
    def now(cls, config: SessionConfig | None = None) -> Snapshot:
        """The counters of this moment; those that this system lacks stay unknown.

        Args:
            config: how the models run, which tells whether a GPU is to be watched.
        """
        gpu = GpuState.of(config) if config is not None else None
        fields = [int(f) for f in read_text("/proc/stat").partition("\n")[0].split()[1:9]]
        steal = fields[7] if len(fields) > 7 else 0
        pressure = number_after(
            read_text("/proc/pressure/cpu").partition("\n")[0].replace("=", " "), "total"
        )
        throttled = number_after(read_text("/sys/fs/cgroup/cpu.stat"), "nr_throttled")
        return cls(time.monotonic_ns(), steal, sum(fields), pressure, throttled, gpu)


@dataclass(frozen=True)
class NoiseCheck:
    """Whether absolute latencies taken here can be trusted, and why not.

    Attributes:
        fit: whether they can.
        reasons: one sentence for each disturbance, with its figure and what to do.
        facts: the figures: steal and pressure as shares of time, throttled periods, involuntary
            switches per run, the canary's 90th percentile over its median; of a GPU its clock in
            MHz, its temperature and the share of time in which its clock was slowed.
    """

    fit: bool = True
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"fit": self.fit, "reasons": list(self.reasons), "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> NoiseCheck:
        """The fitness that `to_json` wrote."""
        return cls(value["fit"], tuple(value["reasons"]), value["facts"])


#: Fact, its largest value on a machine that is quiet enough, what it says, what to do.
LIMITS: tuple[tuple[str, float, str, str], ...] = (
    ("steal", 0.02, "the hypervisor took {:.1%} of the CPU time", "use a machine of your own"),
    ("pressure", 0.20, "tasks waited for a CPU {:.0%} of the time", "stop other work here"),
    ("throttled", 0, "the cgroup's quota stopped us {:.0f} times", "raise it or use less threads"),
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
    """Judge a machine by what happened while it measured.

    Args:
        before: counters at the start.
        after: counters at the end.
        canary_ns: times of the constant kernel, one per block.
        switches: involuntary context switches of each run.
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


def canary(now: Callable[[], int] = time.perf_counter_ns) -> int:
    """Nanoseconds of a constant piece of work, the best of three: what changes is the machine.

    It multiplies integers, since a float product would go to BLAS, whose threads spin afterwards
    and take CPUs from what is measured.
    """
    square = _square()
    times = []
    for _ in range(3):
        start = now()
        square @ square
        times.append(now() - start)
    return min(times)


@functools.cache
def _square() -> np.ndarray[Any, Any]:
    return np.arange(32 * 32, dtype=np.int64).reshape(32, 32)
