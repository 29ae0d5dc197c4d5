"""Bench on a device of a Dask fleet: the scheduler is the queue, a resource token the mutex.

Each worker offers a token for each device behind it (`dask worker --resources "orin-nano=1"`). A
call takes the token, so a device measures for one caller at a time and the others queue. When a
worker is lost, the scheduler gives its call to another worker with such a device.
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
from trimtab.core.progress import Progress, Silent

from ..devices.agent import timing_to_json
from ..devices.agent_store import FEEDS
from ..devices.base import RemoteBench, RemoteCall
from ..devices.bundles import model_files
from ..devices.fleet_address import FleetAddress
from ..measure.feeds import write_feeds
from ..measure.workers.protocol import Message, unpack_error
from .worker import WorkerCall, run_call

#: Seconds to connect, and between two polls.
CONNECT_SECONDS, POLL_SECONDS = 10.0, 0.2
#: Seconds until a call is reported to wait; seconds that a device may have no worker.
WAITING_SECONDS, GONE_SECONDS = 1.0, 20.0
#: Seconds that a call may take beyond its time budget.
EXTRA_SECONDS = 300.0


class FleetBench(RemoteBench):
    """A device of a fleet; each call queues for it, and waiting is reported.

    Raises:
        MissingExtraError: Dask is not installed.
        OptionError: no worker offers such a device.
        RunError: the scheduler does not answer, or the device lacks something.
    """

    def __init__(self, address: FleetAddress, progress: Progress | None = None) -> None:
        self.address, self.progress = address, progress or Silent()
        self._client = connect(address)
        try:
            require_workers(self._client, address)
            self.facts = self._call(self.progress, WorkerCall("facts", address.device))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect from the fleet."""
        self._client.close()

    def request(self, call: RemoteCall) -> Message:
        """See `RemoteBench`."""
        with tempfile.TemporaryDirectory(prefix="trimtab-fleet-") as name:
            folder = Path(name)
            bundles = [
                [(file, path.read_bytes()) for file, path in model_files(s, folder)]
                for s in call.subjects
            ]
            feeds = write_feeds(call.feeds, folder / FEEDS).read_bytes()
        how, device = timing_to_json(call.how), self.address.device
        packed = WorkerCall(call.command, device, bundles, feeds, how, call.options)
        return self._call(call.progress, packed)

    def _call(self, progress: Progress, call: WorkerCall) -> Message:
        call = replace(call, topic=f"trimtab-{uuid.uuid4()}")
        tokens = {self.address.device: 1}
        future = self._client.submit(run_call, call, resources=tokens, pure=False)
        try:
            self._wait(future, call, progress)
            answer: Message = json.loads(future.result())
        except (RunError, KeyboardInterrupt):
            future.cancel()
            raise
        except Exception as error:  # Dask raises errors of many types
            raise dask_error(error, self.address) from error
        if "error" in answer:
            raise unpack_error(answer)
        return answer

    def _wait(self, future: Any, call: WorkerCall, progress: Progress) -> None:
        seconds = (call.how or {}).get("max_seconds", 0.0) + EXTRA_SECONDS
        watch = _CallProgress(self.address, progress, seconds)
        while not future.done():
            time.sleep(POLL_SECONDS)
            offered = count_workers(self._client, self.address.device) > 0
            events = self._client.get_events(call.topic) or ()
            watch.look([event for _, event in events], offered=offered)


def connect(address: FleetAddress) -> Any:
    """Return a client of the scheduler, with Dask's own log silenced.

    Raises:
        MissingExtraError: Dask is not installed.
        RunError: the scheduler does not answer.
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
    """Return the resource tokens of each worker."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return [worker.get("resources", {}) for worker in workers]


def count_workers(client: Any, device: str) -> int:
    """Return the number of workers that offer a device."""
    return sum(device in tokens for tokens in _tokens(client))


def require_workers(client: Any, address: FleetAddress) -> int:
    """Return the number of workers that offer the device.

    Raises:
        OptionError: no worker does.
    """
    end = time.monotonic() + CONNECT_SECONDS / 2
    while not (count := count_workers(client, address.device)) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)  # workers of a new fleet connect after its scheduler
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
    """Time for which no worker has offered a device."""

    def __init__(self, address: FleetAddress) -> None:
        self.address, self.seen = address, time.monotonic()

    def look(self, *, offered: bool) -> None:
        """Note whether a worker offers it now.

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
                hint="Start its worker again; results of this call are lost",
            )


class _CallProgress:
    """Progress of a call while it waits and runs, and its time limit."""

    def __init__(self, address: FleetAddress, progress: Progress, limit: float) -> None:
        self.address, self.progress, self.limit = address, progress, limit
        self.start = self.began = time.monotonic()
        self.absence = AbsenceTimer(address)
        self.holder: str | None = None
        self.reported, self.seen = False, 0

    def look(self, events: Sequence[Message], *, offered: bool) -> None:
        """Report new events of the call, and note whether a worker offers the device.

        Raises:
            LostError: no worker has offered it for too long.
            RunError: the call takes too long.
        """
        now = time.monotonic()
        self.absence.look(offered=offered)
        for event in events[self.seen :]:
            if "said" in event:
                self.progress.say(str(event["said"]))
            elif self.holder is not None:
                lost, self.holder, self.began = self.holder, str(event["worker"]), now
                self.progress.say(f"{self.address}: {lost} was lost; again on {self.holder}")
            else:
                self.holder, self.began = str(event["worker"]), now
        self.seen = len(events)
        if self.holder is None and not self.reported and now - self.start > WAITING_SECONDS:
            self.progress.say(f"{self.address}: waiting for its turn")
            self.reported = True
        if self.holder is not None and now - self.began > self.limit:
            raise RunError(
                f"took more than {self.limit:.0f} s", where=str(self.address), hint="Is it busy?"
            )


def dask_error(error: Exception, address: FleetAddress) -> RunError:
    """Return one error for whatever Dask raised about a call."""
    kind = type(error).__name__
    if kind == "KilledWorker":
        return RunError(
            "its workers die while they measure",
            where=str(address),
            hint="Too little memory there? See their logs",
        )
    if isinstance(error, ImportError):
        return RunError(
            f"its worker lacks a package ({error})",
            where=str(address),
            hint='Install there: pip install "trimtab[fleet]"',
        )
    return RunError(f"failed there: {kind}: {error}", where=str(address))
