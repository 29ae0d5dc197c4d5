"""What a worker of a Dask fleet does: one call of a bench on one of its devices.

The worker hands the call to an agent in a process of its own, here or by ssh on a device that it
fronts, and gives back JSON. Both models of a comparison are measured within the one call.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.errors import TrimtabError
from trimtab.core.ort.session import Feeds
from trimtab.core.progress import Progress, Silent

from ..devices.agent import timing_of
from ..devices.agent_store import MODEL
from ..devices.dispatch import answer_of
from ..devices.fleet_address import FleetAddress
from ..devices.onnxruntime_perf_test import PerfTestBench
from ..devices.registry import FLEET, load, parse
from ..devices.remote import AgentBench
from ..devices.shells import BareDevice
from ..devices.transport import Device, LocalProcess
from ..measure.protocol import Message, pack_error
from ..measure.subject import Subject

#: Files of a model, as (name, bytes), the model itself first.
Bundle = Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class WorkerCall:
    """A call of a bench, as it travels.

    Attributes:
        what: facts, compare, measure, card or diagnosis.
        device: name of the device that the worker has a token of.
        models: the base first, where there is one; a baseline last.
        feeds: an `.npz` of one run.
        how: a timing, see `agent.timing_to_json`.
        more: what the call takes besides.
        topic: of the events that tell the caller who has begun, and what is said meanwhile.
    """

    what: str
    device: str
    models: Sequence[Bundle] = ()
    feeds: bytes = b""
    how: Message | None = None
    more: Message | None = None
    topic: str = ""


class EventProgress(Silent):
    """Tells the caller of a call, through the scheduler, who has begun and what is said."""

    def __init__(self, topic: str) -> None:
        self.topic, self._worker = topic, _worker() if topic else None
        if self._worker is not None:
            self._worker.log_event(topic, {"worker": str(self._worker.name)})

    def say(self, text: str) -> None:
        """Tell a line."""
        if self._worker is not None:
            self._worker.log_event(self.topic, {"said": text})


def carry_out(call: WorkerCall) -> str:
    """The answer as JSON; an error of ours is an answer as well."""
    progress = EventProgress(call.topic)
    try:
        device = fronted(call.device)
        if isinstance(device, BareDevice):
            with PerfTestBench(device, progress) as bare:
                answer = _bare_answer(bare, call, progress)
        else:
            with AgentBench(device, progress) as bench:
                answer = _answer(bench, call, progress)
    except TrimtabError as error:
        answer = pack_error(error)
    return json.dumps(answer)


def fronted(device: str) -> Device | BareDevice:
    """A device that this worker's machine knows by name, else the machine itself.

    A name that stands for the fleet's own device, as it may where its user works too, is no other.
    """
    address = load().get(device, FLEET)
    if address.startswith(FLEET):
        return LocalProcess(device)
    found = parse(address)
    assert not isinstance(found, FleetAddress)
    return found


def _worker() -> Any:
    """The worker that runs this; None where none does."""
    try:
        from distributed import get_worker
    except ImportError:
        return None
    try:
        return get_worker()
    except ValueError:
        return None


def _answer(bench: AgentBench, call: WorkerCall, progress: Progress) -> Message:
    if call.what == "facts":
        return bench.facts
    how, feeds, more = timing_of(call.how or {}), _arrays(call.feeds), call.more or {}
    with _models(call) as paths:
        subjects = [Subject.of(path) for path in paths]
        return bench.ask_for(call.what, subjects, feeds, how, progress, **more)


def _bare_answer(bench: PerfTestBench, call: WorkerCall, progress: Progress) -> Message:
    """What an agent would answer, from a device that has none: its program is driven from here."""
    if call.what == "facts":
        target = bench.target(None).to_json()
        return {"environment": bench.environment().to_json(), "target": target}
    how, feeds, more = timing_of(call.how or {}), _arrays(call.feeds), call.more or {}
    with _models(call) as paths:
        return answer_of(bench, call.what, paths, feeds, how, progress, **more)


@contextlib.contextmanager
def _models(call: WorkerCall) -> Iterator[list[Path]]:
    """The models of a call as files, for a while."""
    with tempfile.TemporaryDirectory(prefix="trimtab-fleet-") as name:
        folders = [Path(name) / str(number) for number in range(len(call.models))]
        yield [_unpacked(b, folder) for b, folder in zip(call.models, folders, strict=True)]


def _arrays(packed: bytes) -> Feeds:
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _unpacked(bundle: Bundle, folder: Path) -> Path:
    folder.mkdir()
    for name, content in bundle:
        (folder / Path(name).name).write_bytes(content)
    return folder / MODEL
