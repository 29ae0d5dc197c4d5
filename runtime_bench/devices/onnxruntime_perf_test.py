"""Bench for devices without Python: alternating short runs of onnxruntime_perf_test.

The program reports neither comparable load times nor memory, so start-up costs are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trimtab.core.errors import OptionError, RunError
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Progress, Silent
from trimtab.core.target import KERNEL_FLAGS, PRESETS, Target

from ..bench.bench import Timing
from ..machine.environment import Environment
from ..measure.subject import Subject
from ..measure.workers.protocol import Message
from .contender_bench import ContenderBench
from .perf_test_contender import PerfTestContender, check_on_device
from .shells import BareDevice

#: Facts about a Linux machine; OMP_NUM_THREADS of the session would change nproc.
_FACTS = """unset OMP_NUM_THREADS
uname -srm
nproc
cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2> /dev/null
cat /proc/cpuinfo
exit 0"""


class PerfTestBench(ContenderBench):
    """A device, locked on this machine until the bench is closed.

    Raises:
        RunError: the device cannot be reached, or lacks the program.
        OptionError: another run on this machine uses it.
    """

    no_costs = "load time and memory need trimtab on the device, perf_test does not report them"
    no_diagnosis = "a diagnosis needs trimtab on the device, perf_test does not report what it runs"
    instead = "--target with the preset of its kind"

    def __init__(self, device: BareDevice, progress: Progress | None = None) -> None:
        self.device, self.progress = device, progress or Silent()
        self._stack = contextlib.ExitStack()
        try:
            self._stack.enter_context(_locked(device))
            name = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="trimtab-perf-"))
            self._folder = Path(name)
            self._check_program()
            self._system = device.shell.run(["sh", "-c", _FACTS])
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> Message:
        """Description of the device, as an agent would send it."""
        target = self.target(None).to_json()
        return {"environment": self.environment().to_json(), "target": target}

    def _check_program(self) -> None:
        program = self.device.perf_test
        if not check_on_device(self.device, f"-x {shlex.quote(program)}"):
            raise RunError(
                f"there is no program {program}",
                where=str(self.device),
                hint="Build onnxruntime for that device, copy its onnxruntime_perf_test there, "
                "and chmod +x it",
            )

    def close(self) -> None:
        """Release the device."""
        self._stack.close()

    def environment(self) -> Environment:
        """See `Bench`; unknown versions are empty."""
        system, cpus, governor, *info = [*self._system.splitlines(), "", "", ""]
        pairs = (line.partition(":") for line in info)
        facts = {key.strip(): value.strip() for key, colon, value in pairs if colon}
        flags = facts.get("flags", facts.get("Features", "")).split()
        names = ("model name", "Hardware", "Processor", "CPU part")
        return Environment(
            cpu=next((facts[n] for n in names if n in facts), system),
            flags=tuple(f for f in KERNEL_FLAGS if f in flags),
            cpus=int(cpus) if cpus.isdigit() else 1,
            affinity=(),
            quota=None,
            governor=governor if ":" not in governor else "",
            system=system,
            python="",
            onnxruntime="",
            numpy="",
        )

    def target(self, threads: int | None) -> Target:
        """See `Bench`."""
        here = self.environment()
        arm = here.system.split()[-1:] in (["aarch64"], ["arm64"])
        vnni = {"asimddp"} if arm else {"avx512_vnni", "avx_vnni"}
        wide = "avx512" if "avx512f" in here.flags else "avx2"
        dot = not vnni.isdisjoint(here.flags)
        name = "arm64" if arm else f"x64-{wide}{'-vnni' if dot else ''}"
        return replace(PRESETS[name], name="detected", vnni=dot, threads=threads or here.cpus)

    def _contender(
        self, source: Any, name: str, config: SessionConfig, how: Timing
    ) -> PerfTestContender:
        if how.concurrency != 1 or how.in_process:
            raise OptionError("needs trimtab on the device", where="--concurrency, --in-process")
        if config.provider != "CPUExecutionProvider":
            raise OptionError("measures on the CPU only", where=f"--provider {config.provider}")
        return PerfTestContender(self.device, Subject.of(source), name, config, self._folder)


@contextlib.contextmanager
def _locked(device: BareDevice) -> Iterator[None]:
    """Lock the device against other runs on this machine, the only one that reaches it."""
    key = hashlib.sha256(str(device).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"trimtab-device-{key}.lock"
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        held = lock.acquire()
    except Timeout:
        raise OptionError(
            "another run on this machine uses it", where=str(device), hint="Wait for its end"
        ) from None
    with held:
        yield
