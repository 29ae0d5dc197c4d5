"""Calls of a bench on a worker of a Dask fleet.

The worker passes a call to an agent in a process of its own, here or by ssh on a device behind it,
and returns JSON. Both models of a comparison are measured within one call.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.core.errors import TrimtabError
from trimtab.core.progress import Progress, Silent

from ..devices.agent import timing_from_json
from ..devices.agent_bench import AgentBench
from ..devices.agent_store import MODEL
from ..devices.base import RemoteCall
from ..devices.dispatch import dispatch
from ..devices.fleet_address import FleetAddress
from ..devices.onnxruntime_perf_test import PerfTestBench
from ..devices.registry import FLEET, load, parse
from ..devices.shells import BareDevice
from ..devices.transport import Device, LocalProcess
from ..measure.feeds import read_feeds
from ..measure.subject import Subject
from ..measure.workers.protocol import Message, pack_error

#: Files of a model as (name, bytes), the model itself first.
Bundle = Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class WorkerCall:
    """Call of a bench, as sent to a worker.

    Attributes:
        command: facts, compare, measure, card (start-up costs) or diagnosis.
        device: name of the device whose token the worker has.
        models: the base first, where there is one; a baseline last.
        feeds: an `.npz` of one run.
        how: a timing, see `agent.timing_to_json`.
        options: further arguments of the call.
        topic: Dask topic for the events that report the worker and its messages.
    """

    command: str
    device: str
    models: Sequence[Bundle] = ()
    feeds: bytes = b""
    how: Message | None = None
    options: Mapping[str, Any] | None = None
    topic: str = ""


class EventProgress(Silent):
    """Progress reported to the caller as events of the scheduler, the worker's name first."""

    def __init__(self, topic: str) -> None:
        self.topic, self._worker = topic, _worker() if topic else None
        if self._worker is not None:
            self._worker.log_event(topic, {"worker": str(self._worker.name)})

    def say(self, text: str) -> None:
        """Report a line."""
        if self._worker is not None:
            self._worker.log_event(self.topic, {"said": text})


def run_call(call: WorkerCall) -> str:
    """Run a call and return the answer as JSON; an error of trimtab is an answer as well."""
    progress = EventProgress(call.topic)
    try:
        with _bench_behind(call.device, progress) as bench:
            answer = _answer(bench, call, progress)
    except TrimtabError as error:
        answer = pack_error(error)
    return json.dumps(answer)


def _bench_behind(device: str, progress: Progress) -> AgentBench | PerfTestBench:
    found = device_behind(device)
    if isinstance(found, BareDevice):
        return PerfTestBench(found, progress)
    return AgentBench(found, progress)


def device_behind(device: str) -> Device | BareDevice:
    """Return the device that this machine knows by that name, else the machine itself.

    A name that stands here for an address of a fleet also means the machine itself.
    """
    address = load().get(device, FLEET)
    if address.startswith(FLEET):
        return LocalProcess(device)
    found = parse(address)
    assert not isinstance(found, FleetAddress)
    return found


def _worker() -> Any:
    """Return the worker that runs this code, None outside a worker."""
    with contextlib.suppress(ImportError, ValueError):
        from distributed import get_worker

        return get_worker()
    return None


def _answer(bench: AgentBench | PerfTestBench, call: WorkerCall, progress: Progress) -> Message:
    if call.command == "facts":
        return bench.facts
    how, feeds = timing_from_json(call.how or {}), read_feeds(io.BytesIO(call.feeds))
    options = call.options or {}
    with tempfile.TemporaryDirectory(prefix="trimtab-fleet-") as name:
        paths = [_unpacked(b, Path(name) / str(number)) for number, b in enumerate(call.models)]
        if isinstance(bench, AgentBench):
            subjects = [Subject.of(path) for path in paths]
            return bench.request(RemoteCall(call.command, subjects, feeds, how, progress, options))
        return dispatch(bench, call.command, paths, feeds, how, progress, **options)


def _unpacked(bundle: Bundle, folder: Path) -> Path:
    folder.mkdir()
    for name, content in bundle:
        (folder / Path(name).name).write_bytes(content)
    return folder / MODEL
