"""A bench for devices without Python: alternating short runs of onnxruntime_perf_test.

It tells neither load times nor memory that could be compared with a card's, so cards are refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.errors import OptionError, RunError
from trimtab.core.ort.session import Feeds
from trimtab.core.progress import Progress, Silent
from trimtab.core.target import KERNEL_FLAGS, PRESETS, Target

from ..bench.bench import Timing, Told
from ..machine.environment import Environment
from ..machine.noise_check import Fitness
from ..measure.compare import ModelOrPath, compare, measure
from ..measure.startup import Card
from ..measure.subject import Subject
from ..measure.values import Comparison, Measurement
from .base import Closes
from .perf_test_contender import PerfTestArm, holds
from .shells import BareDevice

#: What a Linux tells of itself; nproc would take a variable of the session for the machine.
_FACTS = """unset OMP_NUM_THREADS
uname -srm
nproc
cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2> /dev/null
cat /proc/cpuinfo
exit 0"""


class PerfTestBench(Closes):
    """A device, ours on this machine until it is closed.

    Args:
        device: how to reach it.
        progress: where to tell.

    Raises:
        RunError: it cannot be reached, or has no such program.
        OptionError: another run of this machine uses it.
    """

    def __init__(self, device: BareDevice, progress: Progress | None = None) -> None:
        self.device, self.progress = device, progress or Silent()
        self._stack = contextlib.ExitStack()
        try:
            self._stack.enter_context(_locked(device))
            name = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="trimtab-perf-"))
            self._folder = Path(name)
            self._check_program()
            self._facts = device.shell.run(["sh", "-c", _FACTS])
        except BaseException:
            self.close()
            raise

    def _check_program(self) -> None:
        program = self.device.perf_test
        if not holds(self.device, f"-x {shlex.quote(program)}"):
            raise RunError(
                f"there is no program {program}",
                where=str(self.device),
                hint="Build onnxruntime for that device, copy its onnxruntime_perf_test there, "
                "and chmod +x it",
            )

    def close(self) -> None:
        """Give the device back."""
        self._stack.close()

    def compare(
        self,
        base: ModelOrPath,
        candidates: Sequence[ModelOrPath],
        feeds: Feeds,
        how: Timing,
        progress: Progress,
    ) -> list[Comparison]:
        """See `Bench`."""
        found = compare(
            base,
            candidates,
            feeds,
            config=how.config,
            max_seconds=how.max_seconds,
            alpha=how.alpha,
            resolution=how.resolution,
            seed=how.seed,
            progress=progress,
            make_arm=lambda source, name: self._arm(source, name, how),
        )
        return [
            replace(c, base=self._there(c.base), candidate=self._there(c.candidate)) for c in found
        ]

    def measure(
        self, models: Sequence[ModelOrPath], feeds: Feeds, how: Timing, progress: Progress
    ) -> list[Measurement]:
        """See `Bench`."""
        found = measure(
            models,
            feeds,
            config=how.config,
            max_seconds=how.max_seconds,
            seed=how.seed,
            progress=progress,
            make_arm=lambda source, name: self._arm(source, name, how),
        )
        return [self._there(m) for m in found]

    def card(
        self, model: ModelOrPath, feeds: Feeds, how: Timing, processes: int, *, arena: bool
    ) -> tuple[Card, Fitness]:
        """Refused: the program tells neither load times nor memory.

        Raises:
            RunError: always.
        """
        del model, feeds, how, processes, arena
        raise RunError(
            "load time and memory need trimtab on the device, perf_test does not tell them",
            where=str(self.device),
            hint="Give --no-card",
        )

    def diagnosis(
        self,
        model: ModelOrPath,
        baseline: ModelOrPath | None,
        feeds: Feeds,
        how: Timing,
        *,
        profiled: bool,
    ) -> Told:
        """Refused: the program tells nothing of the graph that it runs.

        Raises:
            RunError: always.
        """
        del model, baseline, feeds, how, profiled
        raise RunError(
            "a diagnosis needs trimtab on the device, perf_test does not tell what it runs",
            where=str(self.device),
            hint="Give --target with the preset of its kind instead of --on",
        )

    def environment(self) -> Environment:
        """See `Bench`; versions that the device does not tell are empty."""
        system, cpus, governor, *info = [*self._facts.splitlines(), "", "", ""]
        facts = _cpuinfo(info)
        names = ("model name", "Hardware", "Processor", "CPU part")
        return Environment(
            cpu=next((facts[n] for n in names if n in facts), system),
            flags=tuple(f for f in KERNEL_FLAGS if f in _flags(facts)),
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

    def _arm(self, source: Any, name: str, how: Timing) -> PerfTestArm:
        if how.concurrency != 1 or how.in_process:
            raise OptionError("needs trimtab on the device", where="--concurrency, --in-process")
        if how.config.provider != "CPUExecutionProvider":
            raise OptionError("measures its CPU alone", where=f"--provider {how.config.provider}")
        return PerfTestArm(self.device, Subject.of(source), name, how.config, self._folder)

    def _there(self, found: Measurement) -> Measurement:
        """With the device's environment; how quiet it was is not known."""
        return replace(found, environment=self.environment(), fitness=Fitness())


@contextlib.contextmanager
def _locked(device: BareDevice) -> Iterator[None]:
    """Ours among the runs on this machine, which alone reaches a device on its cable."""
    key = hashlib.sha256(str(device).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"trimtab-device-{key}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OptionError(
                "another run on this machine uses it", where=str(device), hint="Wait for its end"
            ) from None
        yield


def _cpuinfo(lines: Sequence[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _flags(facts: dict[str, str]) -> set[str]:
    return set(facts.get("flags", facts.get("Features", "")).split())
