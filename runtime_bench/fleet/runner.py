"""Outputs of models from the workers of a Dask fleet: evaluations spread over all of them.

Each task carries the model and a part of the data, so any free worker can take it, and another one
if that is lost. A task takes the token of a device, which measures nothing meanwhile.
"""

from __future__ import annotations

import collections
import io
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from trimtab.core.batches import finite_batches
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.errors import RunError, TrimtabError
from trimtab.core.model import EXTERNAL_DATA_BYTES, Model
from trimtab.core.ort.session import Outputs, SessionConfig, build_session, run
from trimtab.core.runner import run_here

from ..devices.base import Closeable
from ..devices.fleet_address import FleetAddress
from ..measure.workers.protocol import pack_error, unpack_error
from .bench import AbsenceTimer, connect, count_workers, dask_error, require_workers

#: Most bytes of feeds in one task, unless a single batch has more.
PART_BYTES = 16 << 20
#: Pending tasks for each worker: one runs, one waits.
AHEAD = 2
#: Seconds between two checks that a worker is still there.
LOOK_SECONDS = 1.0
#: Sessions that a worker keeps.
KEPT = 2

_SESSIONS: collections.OrderedDict[str, Any] = collections.OrderedDict()


class FleetRunner(Closeable):
    """Runs models over data on all workers that offer a device; see `core.runner.Runner`.

    Raises:
        MissingExtraError: Dask is not installed.
        OptionError: no worker offers such a device.
        RunError: the scheduler does not answer.
    """

    def __init__(self, address: FleetAddress) -> None:
        self.address = address
        self._client = connect(address)
        try:
            self.workers = require_workers(self._client, address)
        except BaseException:
            self.close()
            raise

    def __str__(self) -> str:
        return self.address.device

    def close(self) -> None:
        """Disconnect from the fleet."""
        self._client.close()

    def __call__(
        self, model: Model, data: Dataset, config: SessionConfig
    ) -> Iterator[tuple[Batch, Outputs]]:
        """Yield each batch with its outputs, in order.

        A model beyond 2 GB runs here, and one with states, whose steps follow one another.

        Raises:
            DataError: NaN or infinity in the data.
            RunError: the model cannot be run, or the fleet fails.
        """
        if model.weight_bytes > EXTERNAL_DATA_BYTES or data.stream is not None:
            yield from run_here(model, data, config)
            return
        packed, plain, token = model.to_bytes(), config.to_json(), {self.address.device: 1}
        pending: collections.deque[tuple[list[Batch], Any]] = collections.deque()
        try:
            for part in _parts(data, self.workers):
                call = (model.digest, packed, plain, [_packed(batch.feeds) for batch in part])
                task = self._client.submit(compute_outputs, *call, resources=token, pure=False)
                pending.append((part, task))
                if len(pending) >= AHEAD * self.workers:
                    yield from self._taken(*pending.popleft())
            while pending:
                yield from self._taken(*pending.popleft())
        finally:
            for _, task in pending:
                task.cancel()

    def _taken(self, part: list[Batch], task: Any) -> Iterator[tuple[Batch, Outputs]]:
        try:
            error, found = self._result(task)
        except RunError:
            raise
        except Exception as failure:  # Dask raises errors of many types
            raise dask_error(failure, self.address) from failure
        if error:
            raise unpack_error(json.loads(error))
        for batch, outputs in zip(part, found, strict=True):
            yield batch, _unpacked(outputs)

    def _result(self, task: Any) -> tuple[str, list[bytes]]:
        gone = AbsenceTimer(self.address)
        while True:
            try:
                found: tuple[str, list[bytes]] = task.result(timeout=LOOK_SECONDS)
            except TimeoutError:
                gone.look(offered=count_workers(self._client, self.address.device) > 0)
            else:
                return found


def compute_outputs(
    digest: str, model: bytes, config: Mapping[str, Any], feeds: list[bytes]
) -> tuple[str, list[bytes]]:
    """Return, on a worker, an error of trimtab as JSON or the outputs of each feed."""
    try:
        session = _session(digest, model, config)
        return "", [_packed(run(session, _unpacked(one))) for one in feeds]
    except TrimtabError as error:
        return json.dumps(pack_error(error)), []


def _session(digest: str, model: bytes, config: Mapping[str, Any]) -> Any:
    key = f"{digest} {json.dumps(config, sort_keys=True)}"
    if key not in _SESSIONS:
        loaded = Model.from_proto(onnx.load_from_string(model), "candidate")
        _SESSIONS[key] = build_session(loaded, SessionConfig.from_json(config))
        while len(_SESSIONS) > KEPT:
            _SESSIONS.popitem(last=False)
    _SESSIONS.move_to_end(key)
    return _SESSIONS[key]


def _parts(data: Dataset, workers: int) -> Iterator[list[Batch]]:
    """Yield runs of batches, one for each task: shared among the workers, limited in size."""
    most = math.ceil(data.batches / workers)
    part: list[Batch] = []
    size = 0
    for batch in finite_batches(data):
        own = sum(array.nbytes for array in batch.feeds.values())
        if part and (len(part) == most or size + own > PART_BYTES):
            yield part
            part, size = [], 0
        part.append(batch)
        size += own
    if part:
        yield part


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    stream = io.BytesIO()
    # By number: the name of a tensor may not be a valid file name in an archive.
    np.savez(stream, *arrays.values(), names=np.array(list(arrays)))
    return stream.getvalue()


def _unpacked(packed: bytes) -> Outputs:
    with np.load(io.BytesIO(packed), allow_pickle=False) as found:
        names = [str(name) for name in found["names"]]
        return {name: found[f"arr_{number}"] for number, name in enumerate(names)}
