"""Where a measurement was taken: facts that name the machine, and facts that make it unfit."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.target import cpu_flags, usable_cpus

#: The flags that choose between onnxruntime's kernels.
KERNEL_FLAGS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)


@dataclass(frozen=True)
class Environment:
    """The machine and the software that a measurement was taken with.

    Attributes:
        cpu: its model name.
        flags: instruction-set flags that choose kernels.
        cpus: CPUs that may be used: affinity mask cut by the cgroup's quota.
        affinity: numbers of the CPUs in the affinity mask.
        quota: CPUs by the cgroup's quota, None without one.
        governor: of the first CPU's frequency, empty where it cannot be read.
        system: kernel and architecture.
        python: version.
        onnxruntime: version.
        numpy: version.
    """

    cpu: str
    flags: tuple[str, ...]
    cpus: int
    affinity: tuple[int, ...]
    quota: float | None
    governor: str
    system: str
    python: str
    onnxruntime: str
    numpy: str

    @classmethod
    def here(cls) -> Environment:
        """This process's."""
        import onnxruntime

        flags = cpu_flags()
        return cls(
            cpu=_cpu_name(),
            flags=tuple(f for f in KERNEL_FLAGS if f in flags),
            cpus=usable_cpus(),
            affinity=_affinity(),
            quota=_quota(),
            governor=_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=platform.python_version(),
            onnxruntime=onnxruntime.__version__,
            numpy=np.__version__,
        )

    def machine_class(self) -> str:
        """A key under which absolute latencies compare: CPU, flags, number of CPUs, software.

        The kernel's version and the affinity's numbers are left out: they change from one hosted
        runner to the next without another speed.
        """
        kind = (self.cpu, self.flags, self.cpus, platform.machine(), self.onnxruntime)
        short = "-".join(self.cpu.split()[:4]) or platform.machine()
        return f"{short}-{self.cpus}cpu-{hashlib.sha256(repr(kind).encode()).hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        """All fields, and the machine class, as JSON values."""
        plain = dict(self.__dict__, flags=list(self.flags), affinity=list(self.affinity))
        return plain | {"machine_class": self.machine_class()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Environment:
        """The environment that `to_json` wrote."""
        fields = {k: v for k, v in value.items() if k != "machine_class"}
        fields["flags"], fields["affinity"] = tuple(fields["flags"]), tuple(fields["affinity"])
        return cls(**fields)


@dataclass(frozen=True)
class Snapshot:
    """Counters that only grow; the difference of two tells what happened between.

    Attributes:
        at_ns: monotonic time.
        steal: share of a CPU second that the hypervisor gave to others, in ticks, all CPUs.
        ticks: all ticks of all CPUs.
        pressure_us: time in which some task waited for a CPU (PSI), None where unknown.
        throttled: periods in which the cgroup's quota stopped us, None where unknown.
    """

    at_ns: int
    steal: int = 0
    ticks: int = 0
    pressure_us: int | None = None
    throttled: int | None = None

    @classmethod
    def now(cls) -> Snapshot:
        """The counters of this moment; those that this system lacks stay unknown."""
        fields = [int(f) for f in _text("/proc/stat").partition("\n")[0].split()[1:9]]
        steal = fields[7] if len(fields) > 7 else 0
        pressure = _field(_text("/proc/pressure/cpu").partition("\n")[0].replace("=", " "), "total")
        throttled = _field(_text("/sys/fs/cgroup/cpu.stat"), "nr_throttled")
        return cls(time.monotonic_ns(), steal, sum(fields), pressure, throttled)


@dataclass(frozen=True)
class Fitness:
    """Whether absolute latencies taken here can be trusted, and why not.

    Attributes:
        fit: whether they can.
        reasons: one sentence for each disturbance, with its figure and what to do.
        facts: the figures: steal and pressure as shares of time, throttled periods, involuntary
            switches per run, the canary's 90th percentile over its median.
    """

    fit: bool = True
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"fit": self.fit, "reasons": list(self.reasons), "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fitness:
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


def fit_to_measure(
    before: Snapshot,
    after: Snapshot,
    *,
    canary_ns: Sequence[float] = (),
    switches: Sequence[int] = (),
) -> Fitness:
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
    reasons = tuple(
        f"{text.format(facts[name])} (at most {limit:g}): {advice}"
        for name, limit, text, advice in LIMITS
        if facts.get(name, 0) > limit
    )
    return Fitness(not reasons, reasons, facts)


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


def _affinity() -> tuple[int, ...]:
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except AttributeError:  # not on Linux
        return tuple(range(os.cpu_count() or 1))


def _quota() -> float | None:
    parts = _text("/sys/fs/cgroup/cpu.max").split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0].isdigit() else None


def _cpu_name() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in {"model name", "hardware", "cpu model"}:
            return value.strip()
    return platform.processor() or platform.machine()


def _field(text: str, name: str) -> int | None:
    words = text.split()
    return int(words[words.index(name) + 1]) if name in words else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
