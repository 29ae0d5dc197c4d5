"""Benches and runners opened by the name or address of a device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from trimtab.core.errors import OptionError
from trimtab.core.progress import Progress
from trimtab.core.runner import Runner

from .bench.bench import Bench, LocalBench
from .devices.agent_bench import AgentBench
from .devices.fleet_address import FleetAddress
from .devices.onnxruntime_perf_test import PerfTestBench
from .devices.registry import find
from .devices.shells import BareDevice
from .devices.web_bench import WebBench
from .devices.web_browser import WebDevice, is_web
from .devices.web_runner import WebRunner
from .fleet.bench import FleetBench
from .fleet.runner import FleetRunner
from .multi_device import MultiDeviceBench


@contextlib.contextmanager
def bench_on(name: str | None, progress: Progress) -> Iterator[Bench]:
    """Open the bench on a device, or on this machine where the name is None.

    Raises:
        OptionError: the device is unknown, or its address is not valid.
        RunError: it cannot be reached, or lacks something.
    """
    if name is None:
        yield LocalBench()
        return
    if is_web(name):
        with WebBench(WebDevice.of(name), progress) as web:
            yield web
        return
    device = find(name)
    bench: FleetBench | PerfTestBench | AgentBench
    if isinstance(device, FleetAddress):
        bench = FleetBench(device, progress)
    elif isinstance(device, BareDevice):
        bench = PerfTestBench(device, progress)
    else:
        bench = AgentBench(device, progress)
    with bench:
        yield bench


@contextlib.contextmanager
def runner_on(name: str | None) -> Iterator[Runner | None]:
    """Open the runner that evaluates models on a fleet or in a browser; None where name is None.

    Raises:
        OptionError: the device is unknown, or of another kind.
        RunError: the scheduler does not answer.
    """
    if name is None:
        yield None
        return
    if is_web(name):
        with WebRunner(WebDevice.of(name)) as web:
            yield web
        return
    device = find(name)
    if not isinstance(device, FleetAddress):
        raise OptionError(
            "evaluations run on a fleet or in a browser, which this is not",
            where=f"--eval-on {name}",
            hint="Give dask://scheduler:8786?device=NAME; see docs/devices.md",
        )
    with FleetRunner(device) as runner:
        yield runner


def device_names(text: str | None) -> list[str | None]:
    """Return the device names in the value of --on, [None] (this machine) where there is none.

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
    """Open the bench on all devices in the value of --on, or on this machine where it is None.

    Raises:
        OptionError: a device is unknown, or named twice.
        RunError: one cannot be reached, or lacks something.
    """
    with contextlib.ExitStack() as stack:
        wanted = device_names(names)
        _require_distinct([name for name in wanted if name is not None])
        benches = {str(n): stack.enter_context(bench_on(n, progress)) for n in wanted}
        yield MultiDeviceBench(benches) if len(benches) > 1 else next(iter(benches.values()))


def _require_distinct(names: Sequence[str]) -> None:
    """Refuse one device under two names, which would wait for itself."""
    seen: dict[object, str] = {}
    for name in names:
        other = seen.setdefault(name if is_web(name) else find(name), name)
        if other != name:
            raise OptionError(
                f"{other} and {name} are one device", where="--on", hint="Name it once"
            )
