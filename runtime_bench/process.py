"""An arm in a worker process: its thread pool, arena and crash stay its own."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np

from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.session import Feeds, SessionConfig

from .sampling import Runs
from .wire import Message, receive, send, unpack_error

#: A single command may take this long, and twenty times what its runs took so far.
HANG_SECONDS = 60.0
PATIENCE = 20


class ProcessArm:
    """A session in a process of its own, started at once so that all start side by side.

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
        self.config, self.hang_seconds, self.concurrency = config, hang_seconds, concurrency
        self.load_ns: int | None = None
        self.first_ns: int | None = None
        self._run_seconds = 0.0
        self._folder = tempfile.TemporaryDirectory(prefix="trimtab-bench-")
        self._model = model if isinstance(model, Model) else Path(model).resolve()
        self._log = (Path(self._folder.name) / "stderr").open("w+b")
        self.process = _spawn(self._log)
        self._answers: queue.SimpleQueue[Message | RunError | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def warm(self, feeds: Feeds) -> None:
        """Load the model, hand the feeds over, run once.

        Raises:
            RunError: onnxruntime refuses the model or the feeds; the worker crashed or hung.
        """
        if self.load_ns is None:
            self.load()
        path = Path(self._folder.name) / "feeds.npz"
        plain = {n: a.astype(str) if a.dtype == object else a for n, a in feeds.items()}
        np.savez(path, **plain)  # type: ignore[arg-type] # its stub takes the names for options
        self.ask("take its feeds", do="feed", path=str(path))
        first = self.ask("run for the first time", do="time", runs=1)["ns"][0]
        self.first_ns, self._run_seconds = first, first / 1e9

    def load(self) -> None:
        """Build the session in the worker.

        Raises:
            RunError: onnxruntime refuses the model; the worker crashed or hung.
        """
        path = self._model
        if isinstance(path, Model):
            path = path.save(Path(self._folder.name) / "model.onnx")
        config = self.config.to_json()
        if self.config.spinning:  # until the next run only: the others have the CPUs then
            config["config"] = {"session.force_spinning_stop": "1"} | config["config"]
        answer = self.ask("load", do="load", model=str(path), config=config, name=self.name)
        self.load_ns = answer["load_ns"]

    def time(self, runs: int) -> Runs:
        """Run that many times in a row.

        Raises:
            RunError: onnxruntime fails; the worker crashed or hung.
        """
        if self.concurrency > 1:
            answer = self.ask("run", do="flood", runs=runs, concurrency=self.concurrency)
        else:
            answer = self.ask("run", do="time", runs=runs)
        self._run_seconds = max(self._run_seconds, sum(answer["ns"]) / 1e9)
        return Runs(tuple(answer["ns"]), tuple(answer["switches"]))

    def peak_bytes(self) -> int:
        """Peak resident set so far, above the runtime's own.

        Raises:
            RunError: the worker crashed.
        """
        return int(self.ask("tell its memory", do="memory")["peak_bytes"])

    def close(self) -> None:
        """End the worker at once; it has nothing to save."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what it still held for a worker that is gone
                    continue
        self._folder.cleanup()

    def ask(self, doing: str, **message: object) -> Message:
        """Send a command and wait for its answer.

        Raises:
            RunError: the worker answered with an error, crashed, or hung.
        """
        limit = self.hang_seconds + PATIENCE * self._run_seconds
        try:
            send(cast("BinaryIO", self.process.stdin), message)
            answer = self._answers.get(timeout=limit)
        except queue.Empty:
            self.process.kill()
            raise RunError(
                f"hangs: its process did not {doing} within {limit:.0f} s, and was killed",
                where=self.name,
                hint="Try smaller inputs, or fewer threads",
            ) from None
        except (OSError, ValueError):
            answer = None
        if answer is None:
            raise self._crash(doing)
        if isinstance(answer, RunError):
            raise answer
        if "error" in answer:
            raise unpack_error(answer)
        return answer

    def _listen(self) -> None:
        """Hand answers over; None at the end of the worker."""
        stream = cast("BinaryIO", self.process.stdout)
        try:
            while (message := receive(stream)) is not None:
                self._answers.put(message)
        except RunError as error:
            self._answers.put(error)
        except (OSError, ValueError):  # closed under our hands
            pass
        self._answers.put(None)

    def _crash(self, doing: str) -> RunError:
        code = self.process.wait()
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().rpartition("\n")[2][:300]
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        hint = (
            "The system may have killed it for its memory: try smaller inputs"
            if code == -getattr(signal, "SIGKILL", 9)
            else "It is the model that onnxruntime cannot bear here; try another level or provider"
        )
        said = f"; it said: {last}" if last else ""
        return RunError(
            f"its process died when it was to {doing} ({how}){said}", where=self.name, hint=hint
        )


def _spawn(log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a worker with this process's import path, out of reach of the terminal's Ctrl-C."""
    paths = os.pathsep.join(str(Path(p).resolve()) for p in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "trimtab.runtime_bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=os.environ | {"PYTHONPATH": paths},
        start_new_session=True,
    )
