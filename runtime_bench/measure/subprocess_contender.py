"""A contender in a worker process: its thread pool, arena and crash stay its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from trimtab.core.model import Model
from trimtab.core.ort.accelerators import memory_of
from trimtab.core.ort.session import Feeds, SessionConfig

from ..machine.placement import Placement
from .contender import Runs
from .io_binding import session_config
from .pacing import stabilize
from .protocol import Message
from .worker_process import FOLDER_PREFIX, WorkerProcess

#: A single command may take this long, and twenty times what its runs took so far.
HANG_SECONDS = 60.0
PATIENCE = 20


class SubprocessContender:
    """A session in a process of its own.

    Args:
        model: a model or file.
        config: how to build the session.
        name: for messages.
        hang_seconds: how long the worker may be silent before it is killed.
        concurrency: callers at once; with more than one, times are per inference of a burst.
    """

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
        self.config = session_config(config, model if isinstance(model, Model) else Path(model))
        self.hang_seconds, self.concurrency = hang_seconds, concurrency
        self.placement: Placement | None = None
        self.load_ns: int | None = None
        self.first_ns: int | None = None
        self._run_seconds = 0.0
        self._folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX)
        self.worker = WorkerProcess(self._folder.name)
        self._feeds = Path(self._folder.name) / "feeds.npz"
        self._model = model if isinstance(model, Model) else Path(model).resolve()

    def warm(self, feeds: Feeds) -> None:
        """Load the model, hand the feeds over, run once.

        Raises:
            RunError: onnxruntime refuses the model or the feeds; the worker crashed or hung.
        """
        plain = {n: a.astype(str) if a.dtype == object else a for n, a in feeds.items()}
        np.savez(self._feeds, **plain)  # type: ignore[arg-type] # its stub takes names for options
        self.worker.fed = False
        if self.load_ns is None:
            self.load()
        self._feed()
        self.first_ns = self._ask("run for the first time", do="time", runs=1)["ns"][0]
        self._run_seconds = self.first_ns / 1e9
        if memory_of(self.config.provider) is not None:
            told = self._ask("tell where its nodes are", do="place")["placement"]
            self.placement = Placement.from_json(told)

    def renew(self) -> None:
        """Build the session anew in the worker that the contender has now, and run it a few times.

        Raises:
            RunError: the worker crashed or hung.
        """
        self.load()
        self._feed()
        stabilize(self, on_device=memory_of(self.config.provider) is not None)

    def load(self) -> None:
        """Build the session in the worker.

        Raises:
            RunError: onnxruntime refuses the model; the worker crashed or hung.
        """
        if isinstance(self._model, Model):
            self._model = self._model.save(Path(self._folder.name) / "model.onnx")
        config = self.config.to_json()
        if self.config.spinning:  # until the next run only: the others have the CPUs then
            config["config"] = {"session.force_spinning_stop": "1"} | config["config"]
        path = str(self._model)
        answer = self._ask("load", do="load", model=path, config=config, name=self.name)
        self.load_ns = answer["load_ns"]

    def time(self, runs: int) -> Runs:
        """Run that many times in a row.

        Raises:
            RunError: onnxruntime fails; the worker crashed or hung.
        """
        if self.concurrency > 1:
            answer = self._ask("run", do="throughput", runs=runs, concurrency=self.concurrency)
        else:
            answer = self._ask("run", do="time", runs=runs)
        self._run_seconds = max(self._run_seconds, sum(answer["ns"]) / 1e9)
        return Runs(tuple(answer["ns"]), tuple(answer["switches"]))

    def peak_bytes(self) -> int:
        """Peak resident set since the load, above what was resident before.

        Raises:
            RunError: the worker crashed.
        """
        return int(self._ask("tell its memory", do="memory")["peak_bytes"])

    def close(self) -> None:
        """End the worker at once; it has nothing to save."""
        self.worker.close()
        self._folder.cleanup()

    def _feed(self) -> None:
        if not self.worker.fed:
            self._ask("take its feeds", do="feed", path=str(self._feeds))
            self.worker.fed = True

    def _ask(self, doing: str, **message: object) -> Message:
        limit = self.hang_seconds + PATIENCE * self._run_seconds
        return self.worker.ask(self.name, doing, limit, **message)
