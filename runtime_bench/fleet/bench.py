"""A bench on a device of a Dask fleet: the scheduler is the queue, a resource token the mutex.

Each worker offers a token for each device that it fronts (`dask worker --resources "orin-nano=1"`);
a call takes the token, so that a device measures for one at a time and callers queue. Where a
worker is lost in the middle, the scheduler gives the call to another that has such a device.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.errors import LostError, OptionError, RunError
from trimtab.core.ort.session import Feeds
from trimtab.core.progress import Progress, Silent

from ..bench.bench import Timing
from ..devices.agent import timing_to_json
from ..devices.base import RemoteBench
from ..devices.bundles import feeds_file, model_files
from ..devices.fleet_address import FleetAddress
from ..measure.protocol import Message, unpack_error
from ..measure.subject import Subject
from .worker import WorkerCall, carry_out

#: Seconds to connect, and between two looks.
CONNECT_SECONDS, POLL_SECONDS = 10.0, 0.2
#: After which a call that has not begun is said to wait; that a device may be missing.
WAITING_SECONDS, GONE_SECONDS = 1.0, 20.0
#: That a call may take beside what it was given.
EXTRA_SECONDS = 300.0


class FleetBench(RemoteBench):
    """A device of a fleet; each call queues for it.

    Args:
        address: of the scheduler, and the device.
        progress: where to tell what is waited for.

    Raises:
        MissingExtraError: Dask is not installed.
        OptionError: no worker offers such a device.
        RunError: the scheduler does not answer, or the device lacks what it needs.
    """

    def __init__(self, address: FleetAddress, progress: Progress | None = None) -> None:
        self.address, self.progress = address, progress or Silent()
        self._client = connected(address)
        try:
            check_offered(self._client, address)
            self.facts = self._call(self.progress, WorkerCall("facts", address.device))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the fleet."""
        self._client.close()

    def ask_for(
        self,
        what: str,
        subjects: Sequence[Subject],
        feeds: Feeds,
        how: Timing,
        progress: Progress,
        **more: object,
    ) -> Message:
        """See `RemoteBench`."""
        call = self._packed(what, subjects, feeds, how)
        return self._call(progress, replace(call, more=more))

    def _packed(
        self, what: str, subjects: Sequence[Subject], feeds: Feeds, how: Timing
    ) -> WorkerCall:
        with tempfile.TemporaryDirectory(prefix="trimtab-fleet-") as name:
            folder = Path(name)
            bundles = [
                [(file, path.read_bytes()) for file, path in model_files(s, folder)]
                for s in subjects
            ]
            packed = feeds_file(feeds, folder).read_bytes()
        return WorkerCall(what, self.address.device, bundles, packed, timing_to_json(how))

    def _call(self, progress: Progress, call: WorkerCall) -> Message:
        call = replace(call, topic=f"trimtab-{uuid.uuid4()}")
        tokens = {self.address.device: 1}
        future = self._client.submit(carry_out, call, resources=tokens, pure=False)
        try:
            self._wait(future, call, progress)
            answer: Message = json.loads(future.result())
        except (RunError, KeyboardInterrupt):
            future.cancel()
            raise
        except Exception as error:  # whatever Dask made of what happened there
            raise told(error, self.address) from error
        if "error" in answer:
            raise unpack_error(answer)
        return answer

    def _wait(self, future: Any, call: WorkerCall, progress: Progress) -> None:
        seconds = (call.how or {}).get("max_seconds", 0.0) + EXTRA_SECONDS
        watch = _CallProgress(self.address, progress, seconds)
        while not future.done():
            time.sleep(POLL_SECONDS)
            offered = offering(self._client, self.address.device) > 0
            events = self._client.get_events(call.topic) or ()
            watch.look([event for _, event in events], offered=offered)


def connected(address: FleetAddress) -> Any:
    """A client of the scheduler; Dask tells its own troubles to nobody.

    Raises:
        MissingExtraError: Dask is not installed.
        RunError: nobody answers.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        return address.client(CONNECT_SECONDS)
    except OSError as error:
        raise RunError(
            f"no scheduler answers ({error})",
            where=f"dask://{address.scheduler}",
            hint="Start one: dask scheduler; or try: trimtab fleet up --local 2",
        ) from error


def _tokens(client: Any) -> list[dict[str, float]]:
    """Of each worker."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return [worker.get("resources", {}) for worker in workers]


def offering(client: Any, device: str) -> int:
    """How many workers offer a device of that name."""
    return sum(device in tokens for tokens in _tokens(client))


def check_offered(client: Any, address: FleetAddress) -> int:
    """How many workers offer the device.

    Raises:
        OptionError: none does.
    """
    end = time.monotonic() + CONNECT_SECONDS / 2
    while not (count := offering(client, address.device)) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)  # a fleet that was just started has its workers come
    if count:
        return count
    offered = sorted({name for tokens in _tokens(client) for name in tokens})
    raise OptionError(
        f"no worker offers a device {address.device!r}",
        where=f"dask://{address.scheduler}",
        hint=f"Offered: {', '.join(offered) or 'nothing'}. A worker offers one by "
        f'dask worker {address.scheduler} --resources "{address.device}=1"',
    )


class AbsenceTimer:
    """How long no worker has offered a device."""

    def __init__(self, address: FleetAddress) -> None:
        self.address, self.seen = address, time.monotonic()

    def look(self, *, offered: bool) -> None:
        """Take note of whether one does.

        Raises:
            LostError: none has for too long.
        """
        now = time.monotonic()
        if offered:
            self.seen = now
        elif now - self.seen > GONE_SECONDS:
            raise LostError(
                f"vanished: for {GONE_SECONDS:.0f} s no worker has offered it",
                where=str(self.address),
                hint="Start its worker again; nothing of this call was kept",
            )


class _CallProgress:
    """What is told while a call waits and runs, and when it is given up."""

    def __init__(self, address: FleetAddress, progress: Progress, limit: float) -> None:
        self.address, self.progress, self.limit = address, progress, limit
        self.start = self.began = time.monotonic()
        self.absence = AbsenceTimer(address)
        self.holder: str | None = None
        self.waits, self.heard = False, 0

    def look(self, events: Sequence[Message], *, offered: bool) -> None:
        """Take note of who began and what was said, and of whether there is such a device."""
        now = time.monotonic()
        self.absence.look(offered=offered)
        for event in events[self.heard :]:
            if "said" in event:
                self.progress.say(str(event["said"]))
            elif self.holder is not None:
                lost, self.holder, self.began = self.holder, str(event["worker"]), now
                self.progress.say(f"{self.address}: {lost} was lost; again on {self.holder}")
            else:
                self.holder, self.began = str(event["worker"]), now
        self.heard = len(events)
        if self.holder is None and not self.waits and now - self.start > WAITING_SECONDS:
            self.progress.say(f"{self.address}: waiting for its turn")
            self.waits = True
        if self.holder is not None and now - self.began > self.limit:
            raise RunError(
                f"took more than {self.limit:.0f} s", where=str(self.address), hint="Is it busy?"
            )


def told(error: Exception, address: FleetAddress) -> RunError:
    """One message for whatever Dask made of what happened there."""
    kind = type(error).__name__
    if kind == "KilledWorker":
        return RunError(
            "its workers die while they measure",
            where=str(address),
            hint="Too little memory there? Their logs tell more",
        )
    if isinstance(error, ImportError):
        return RunError(
            f"its worker lacks a package ({error})",
            where=str(address),
            hint='Install there: pip install "trimtab[fleet]"',
        )
    return RunError(f"failed there: {kind}: {error}", where=str(address))
