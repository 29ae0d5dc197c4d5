"""A contender in a worker process, with its own thread pool and arena; a crash stays there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from trimtab.core.model import Model
from trimtab.core.ort.accelerators import memory_of
from trimtab.core.ort.session import Feeds, SessionConfig

from ...machine.placement import Placement
from ..feeds import write_feeds
from ..timing import Runs
from ..workers.io_binding import device_config
from ..workers.protocol import Message
from ..workers.worker_process import FOLDER_PREFIX, WorkerProcess
from .pacing import stabilize

#: Time limit of a command: this long, plus `PATIENCE` times what its runs took so far.
HANG_SECONDS = 60.0
PATIENCE = 20
#: Least of such limits: on a busy machine a process may need this to start and to load a model.
LEAST_SECONDS = 20.0


def hang_limit(max_seconds: float) -> float:
    """Return the time limit of a command in a measurement that may take this long as a whole."""
    return min(HANG_SECONDS, max(LEAST_SECONDS, max_seconds))


class SubprocessContender:
    """A session in its own process, which is killed after `hang_seconds` without an answer.

    With a `concurrency` above 1, as many callers run at once, and times are per inference of a
    burst. RunErrors mean that onnxruntime refused something, or that the worker crashed or hung.
    """

    always_new = False

    def __init__(
        self,
        model: Model | Path,
        config: SessionConfig,
        name: str = "",
        *,
        hang_seconds: float = HANG_SECONDS,
        concurrency: int = 1,
    ) -> None:
        self.name = name or str(model)
        self.config = device_config(config, model if isinstance(model, Model) else Path(model))
        self.hang_seconds, self.concurrency = hang_seconds, concurrency
        self.placement: Placement | None = None
        self.load_ns: int | None = None
        self.first_ns: int | None = None
        self._run_seconds = 0.0
        self._folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX)
        self.worker = WorkerProcess(self._folder.name)
        self._feeds = Path(self._folder.name) / "feeds.npz"
        self._model = model if isinstance(model, Model) else Path(model).resolve()

    def warm(self, feeds: Feeds) -> float:
        """See `Contender`."""
        write_feeds(feeds, self._feeds)
        self.worker.has_feeds = False
        if self.load_ns is None:
            self.load()
        self._feed()
        self.first_ns = int(self._ask("run for the first time", do="time", runs=1)["ns"][0])
        self._run_seconds = self.first_ns / 1e9
        if memory_of(self.config.provider) is not None:
            answer = self._ask("report where its nodes are", do="place")
            self.placement = Placement.from_json(answer["placement"])
        return float(self.first_ns)

    def renew(self) -> None:
        """See `Contender`."""
        self.load()
        self._feed()
        stabilize(self, on_device=memory_of(self.config.provider) is not None)

    def load(self) -> None:
        """Build the session in the worker."""
        if isinstance(self._model, Model):
            self._model = self._model.save(Path(self._folder.name) / "model.onnx")
        config = self.config.to_json()
        if self.config.spinning:  # stop between runs, when the others need the CPUs
            config["config"] = {"session.force_spinning_stop": "1"} | config["config"]
        path = str(self._model)
        answer = self._ask("load", do="load", model=path, config=config, name=self.name)
        self.load_ns = answer["load_ns"]

    def time(self, runs: int) -> Runs:
        """See `Contender`."""
        if self.concurrency > 1:
            answer = self._ask("run", do="throughput", runs=runs, concurrency=self.concurrency)
        else:
            answer = self._ask("run", do="time", runs=runs)
        self._run_seconds = max(self._run_seconds, sum(answer["ns"]) / 1e9)
        return Runs.from_json(answer)

    def peak_bytes(self) -> int:
        """Return the peak resident set since the load, above what was resident before."""
        return int(self._ask("report its memory", do="memory")["peak_bytes"])

    def close(self) -> None:
        """Kill the worker; it has nothing to save."""
        self.worker.close()
        self._folder.cleanup()

    def _feed(self) -> None:
        if not self.worker.has_feeds:
            self._ask("take its feeds", do="feed", path=str(self._feeds))
            self.worker.has_feeds = True

    def _ask(self, doing: str, **message: object) -> Message:
        limit = self.hang_seconds + PATIENCE * self._run_seconds
        return self.worker.ask(self.name, doing, limit, **message)
