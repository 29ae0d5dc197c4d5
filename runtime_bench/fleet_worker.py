"""What a worker of a Dask fleet does: one call of a bench on one of its devices.

The worker hands the call to an agent in a process of its own, here or by ssh on a device that it
fronts, and gives back JSON. Both models of a comparison are measured within the one call.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.errors import TrimtabError
from trimtab.core.progress import Progress, Silent
from trimtab.core.session import Feeds, SessionConfig

from .agent import timing_of
from .agent_store import MODEL
from .bench import Timing
from .fleet_address import FleetAddress
from .perf_test import PerfTestBench
from .remote import RemoteBench
from .shells import BareDevice
from .subject import Subject
from .transport import Device, Here
from .wire import Message, pack_error

#: A bench's `ask_for`.
Answer = Callable[..., Message]
#: Files of a model, as (name, bytes), the model itself first.
Bundle = Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class Call:
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


class Announce(Silent):
    """Tells the caller of a call, through the scheduler, who has begun and what is said."""

    def __init__(self, topic: str) -> None:
        self.topic, self._worker = topic, _worker() if topic else None
        if self._worker is not None:
            self._worker.log_event(topic, {"worker": str(self._worker.name)})

    def say(self, text: str) -> None:
        """Tell a line."""
        if self._worker is not None:
            self._worker.log_event(self.topic, {"said": text})


def carry_out(call: Call) -> str:
    """The answer as JSON; an error of ours is an answer as well."""
    progress = Announce(call.topic)
    try:
        device = fronted(call.device)
        if isinstance(device, BareDevice):
            with PerfTestBench(device, progress) as bare:
                answer = _answer(bare_answer(bare), call, progress)
        else:
            with RemoteBench(device, progress) as bench:
                facts = dict(bench.facts)
                answer = facts if call.what == "facts" else _answer(bench.ask_for, call, progress)
    except TrimtabError as error:
        answer = pack_error(error)
    return json.dumps(answer)


def fronted(device: str) -> Device | BareDevice:
    """A device that this worker's machine knows by name, else the machine itself.

    A name that stands for the fleet's own device, as it may where its user works too, is no other.
    """
    from .devices import FLEET, load, parse

    address = load().get(device, FLEET)
    if address.startswith(FLEET):
        return Here(device)
    found = parse(address)
    assert not isinstance(found, FleetAddress)
    return found


def bare_answer(bench: PerfTestBench) -> Answer:
    """What an agent would answer, from a device that has none: its program is driven from here."""

    def answer(
        what: str,
        subjects: Sequence[Subject],
        feeds: Feeds,
        how: Timing,
        progress: Progress,
        **more: object,
    ) -> Message:
        if what == "facts":
            target = bench.target(None).to_json()
            return {"environment": bench.environment().to_json(), "target": target}
        models = [subject.source for subject in subjects]
        if what == "compare":
            found = bench.compare(models[0], models[1:], feeds, how, progress)
            return {"comparisons": [c.to_json() for c in found]}
        if what == "measure":
            measured = bench.measure(models, feeds, how, progress)
            return {"measurements": [m.to_json() for m in measured]}
        if what == "card":
            bench.card(models[0], feeds, how, 1, arena=False)
        bench.diagnosis(models[0], None, feeds, how, profiled=False)
        raise AssertionError(more)  # both refuse

    return answer


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


def _answer(ask: Answer, call: Call, progress: Progress) -> Message:
    how = timing_of(call.how) if call.how else Timing(SessionConfig())
    feeds = _arrays(call.feeds) if call.feeds else {}
    with tempfile.TemporaryDirectory(prefix="trimtab-fleet-") as name:
        subjects = [
            Subject.of(_unpacked(bundle, Path(name) / str(i)))
            for i, bundle in enumerate(call.models)
        ]
        return ask(call.what, subjects, feeds, how, progress, **(call.more or {}))


def _arrays(packed: bytes) -> Feeds:
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _unpacked(bundle: Bundle, folder: Path) -> Path:
    folder.mkdir()
    for name, content in bundle:
        (folder / Path(name).name).write_bytes(content)
    return folder / MODEL
