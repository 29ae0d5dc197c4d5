"""A worker process as seen from the bench: commands, answers, and crashes."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

from trimtab.core.errors import RunError

from .protocol import Inbox, Message, last_line, logged, send, start_process, unpack_error

#: Prefix of the folders with feeds and models, one per contender.
FOLDER_PREFIX = "trimtab-bench-"


class WorkerProcess:
    """A worker process, which removes the folder if this process dies before doing so.

    The constructor does not wait, so that several start in parallel.

    Args:
        folder: folder of the contender, "" if it has none.
        module: module of this folder that the process runs.
        crash_hint: what to do if the process dies by itself.
    """

    def __init__(
        self,
        folder: str,
        module: str = "worker",
        crash_hint: str = "onnxruntime crashes on this model; try another optimization level or "
        "provider",
    ) -> None:
        self.has_feeds, self._crash_hint = False, crash_hint
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        # The worker gets this process's import path, and does not receive the terminal's Ctrl-C.
        paths = os.pathsep.join(str(Path(p).resolve()) for p in sys.path)
        program = [sys.executable, "-P", "-m", f"{__package__}.{module}"]
        command = [*program, folder] if folder else program
        self.process = start_process(command, self._log, os.environ | {"PYTHONPATH": paths})
        self._answers = Inbox(cast("BinaryIO", self.process.stdout))

    def ask(self, name: str, doing: str, limit_seconds: float, /, **message: object) -> Message:
        """Send a command and wait for its answer; kill the worker if none comes in time.

        Messages name the model and what it is `doing`.

        Raises:
            RunError: the worker answered with an error, crashed, or hung.
        """
        try:
            send(cast("BinaryIO", self.process.stdin), message)
            answer = self._answers.get(limit_seconds)
        except queue.Empty:
            self.process.kill()
            raise RunError(
                f"hangs: its process did not {doing} within {limit_seconds:.0f} s, and was killed",
                where=name,
                hint="Try smaller inputs, fewer threads, or more --max-time",
            ) from None
        except (OSError, ValueError):
            answer = None
        if answer is None:
            raise self._crash(name, doing)
        if "error" in answer:
            raise unpack_error(answer)
        return answer

    def close(self) -> None:
        """Kill the worker; it has nothing to save."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):  # unsent data for a dead worker
                    stream.close()

    def _crash(self, name: str, doing: str) -> RunError:
        code = self.process.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        hint = (
            "The system may have killed it for its memory: try smaller inputs"
            if code == -getattr(signal, "SIGKILL", 9)
            else self._crash_hint
        )
        last = last_line(logged(self._log))
        said = f"; its last output: {last}" if last else ""
        return RunError(
            f"its process died when asked to {doing} ({how}){said}", where=name, hint=hint
        )
