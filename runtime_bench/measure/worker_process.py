"""A worker process, seen from the bench: commands, answers, and how it may end."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO, cast

from trimtab.core.errors import RunError

from .protocol import Message, receive, send, unpack_error

#: Of folders with feeds and models, one for each contender.
FOLDER_PREFIX = "trimtab-bench-"


class WorkerProcess:
    """A worker, started at once, so that several start side by side.

    Args:
        folder: that the worker removes when this process is gone without having done so.

    Attributes:
        process: the worker.
        fed: whether it has the feeds.
    """

    def __init__(self, folder: str) -> None:
        self.fed = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        # The worker gets this process's import path, and is out of reach of the terminal's Ctrl-C.
        paths = os.pathsep.join(str(Path(p).resolve()) for p in sys.path)
        self.process = subprocess.Popen(  # noqa: S603 - our own module, in our own folder
            [sys.executable, "-P", "-m", "trimtab.runtime_bench.measure.worker", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[Message | RunError | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, name: str, doing: str, limit_seconds: float, /, **message: object) -> Message:
        """Send a command and wait for its answer.

        Args:
            name: of the model, for messages.
            doing: what it is to do, for messages.
            limit_seconds: how long it may be silent before it is killed.
            **message: the command.

        Raises:
            RunError: the worker answered with an error, crashed, or hung.
        """
        try:
            send(cast("BinaryIO", self.process.stdin), message)
            answer = self._answers.get(timeout=limit_seconds)
        except queue.Empty:
            self.process.kill()
            raise RunError(
                f"hangs: its process did not {doing} within {limit_seconds:.0f} s, and was killed",
                where=name,
                hint="Try smaller inputs, or fewer threads",
            ) from None
        except (OSError, ValueError):
            answer = None
        if answer is None:
            raise self._crash(name, doing)
        if isinstance(answer, RunError):
            raise answer
        if "error" in answer:
            raise unpack_error(answer)
        return answer

    def close(self) -> None:
        """End the worker at once; it has nothing to save."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):  # what it still held for a worker that is gone
                    stream.close()

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

    def _crash(self, name: str, doing: str) -> RunError:
        code = self.process.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        hint = (
            "The system may have killed it for its memory: try smaller inputs"
            if code == -getattr(signal, "SIGKILL", 9)
            else "It is the model that onnxruntime cannot bear here; try another level or provider"
        )
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().rpartition("\n")[2][:300]
        said = f"; it said: {last}" if last else ""
        return RunError(
            f"its process died when it was to {doing} ({how}){said}", where=name, hint=hint
        )
