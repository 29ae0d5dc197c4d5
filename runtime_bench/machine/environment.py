"""The environment of a measurement: facts that identify the machine and its software."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.core.runtime import runtime
from trimtab.core.target import KERNEL_FLAGS, cpu_flags, cpu_name, usable_cpus

from .gpu import GpuState
from .system import read_text


@dataclass(frozen=True)
class Environment:
    """The machine and the software that a measurement was taken with.

    Attributes:
        cpu: its model name.
        flags: instruction-set flags that choose kernels.
        cpus: CPUs that may be used: the affinity mask limited by the cgroup's quota.
        affinity: numbers of the CPUs in the affinity mask.
        quota: CPUs by the cgroup's quota; None without one.
        governor: frequency governor of the first CPU; empty if it cannot be read.
        system: kernel and architecture.
        gpu: model name of the GPU that it ran on; empty for the CPU.
        driver: version of the GPU's driver.
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
    gpu: str = ""
    driver: str = ""

    @classmethod
    def here(cls, gpu: GpuState | None = None) -> Environment:
        """Describe this process's environment, with the GPU that runs the models, if one does."""
        flags = cpu_flags()
        return cls(
            cpu=cpu_name(),
            flags=tuple(f for f in KERNEL_FLAGS if f in flags),
            cpus=usable_cpus(),
            affinity=_affinity(),
            quota=_quota(),
            governor=read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=platform.python_version(),
            onnxruntime=runtime().__version__,
            numpy=np.__version__,
            gpu=gpu.name if gpu else "",
            driver=gpu.driver if gpu else "",
        )

    def machine_class(self) -> str:
        """Return the key of machines with comparable latencies: CPU, flags, CPUs, GPU, software.

        The kernel's version and the numbers of the affinity mask are left out: they differ between
        hosted runners of the same speed.
        """
        gpu = (self.gpu, self.driver) if self.gpu else ()
        kind = (self.cpu, self.flags, self.cpus, platform.machine(), self.onnxruntime, *gpu)
        short = "-".join((self.gpu or self.cpu).split()[:4]) or platform.machine()
        return f"{short}-{self.cpus}cpu-{hashlib.sha256(repr(kind).encode()).hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        """Return all fields, and the machine class, as JSON values."""
        plain = dict(self.__dict__, flags=list(self.flags), affinity=list(self.affinity))
        return plain | {"machine_class": self.machine_class()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Environment:
        """Read the environment that `to_json` wrote."""
        fields = {k: v for k, v in value.items() if k != "machine_class"}
        fields["flags"], fields["affinity"] = tuple(fields["flags"]), tuple(fields["affinity"])
        return cls(**fields)


def _affinity() -> tuple[int, ...]:
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except AttributeError:  # not on Linux
        return tuple(range(os.cpu_count() or 1))


def _quota() -> float | None:
    parts = read_text("/sys/fs/cgroup/cpu.max").split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0].isdigit() else None
