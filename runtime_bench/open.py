"""Benches and runners opened by the name or address of a device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from trimtab.core.errors import OptionError
from trimtab.core.progress import Progress
from trimtab.core.runner import Runner

from .bench.bench import Bench, LocalBench
from .devices.fleet_address import FleetAddress
from .devices.onnxruntime_perf_test import PerfTestBench
from .devices.registry import find
from .devices.remote import AgentBench
from .devices.shells import BareDevice
from .fleet.bench import FleetBench
from .fleet.runner import FleetRunner
from .multi_device import MultiDeviceBench


@contextlib.contextmanager
def bench_on(name: str | None, progress: Progress) -> Iterator[Bench]:
    """The bench on a device, ours until the end; this machine's where no name is given.

    Raises:
        OptionError: no such device.
        RunError: it cannot be reached, or lacks what it needs.
    """
    if name is None:
        yield LocalBench()
        return
    device = find(name)
    if isinstance(device, FleetAddress):
        with FleetBench(device, progress) as fleet:
            yield fleet
    elif isinstance(device, BareDevice):
        with PerfTestBench(device, progress) as bare:
            yield bare
    else:
        with AgentBench(device, progress) as bench:
            yield bench


@contextlib.contextmanager
def runner_on(name: str | None) -> Iterator[Runner | None]:
    """What runs models on a fleet while their quality is judged; None where no name is given.

    Raises:
        OptionError: no such device, or none of a fleet.
        RunError: its scheduler does not answer.
    """
    if name is None:
        yield None
        return
    device = find(name)
    if not isinstance(device, FleetAddress):
        raise OptionError(
            "evaluations are spread over a fleet, which this is not",
            where=f"--eval-on {name}",
            hint="Give dask://scheduler:8786?device=NAME; see docs/devices.md",
        )
    with FleetRunner(device) as runner:
        yield runner


def device_names(text: str | None) -> list[str | None]:
    """The devices of an --on: one, several with commas between, or this machine.

    Raises:
        OptionError: a name between commas is missing.
    """
    if text is None:
        return [None]
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise OptionError(f"{text!r} lacks a name", where="--on", hint="Write --on pi5,orin-nano")
    return list(dict.fromkeys(names))


@contextlib.contextmanager
def bench_on_all(names: str | None, progress: Progress) -> Iterator[Bench]:
    """The bench on the devices of an --on, ours until the end; this machine's where None.

    Raises:
        OptionError: no such device.
        RunError: one cannot be reached, or lacks what it needs.
    """
    with contextlib.ExitStack() as stack:
        wanted = device_names(names)
        _refuse_twice([name for name in wanted if name is not None])
        benches = {str(n): stack.enter_context(bench_on(n, progress)) for n in wanted}
        yield MultiDeviceBench(benches) if len(benches) > 1 else next(iter(benches.values()))


def _refuse_twice(names: Sequence[str]) -> None:
    """One device under two names would wait for itself."""
    seen: dict[object, str] = {}
    for name in names:
        other = seen.setdefault(find(name), name)
        if other != name:
            raise OptionError(
                f"{other} and {name} are one device", where="--on", hint="Name it once"
            )
