"""A scheduler and workers as processes of this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from trimtab.core.errors import MissingExtraError, OptionError, RunError

from ..devices.base import Closeable
from ..measure.workers.protocol import last_line

START_SECONDS = 60.0
STOP_SECONDS = 5.0


class LocalFleet(Closeable):
    """A scheduler on the loopback, and a worker with one thread for each device.

    All workers offer the `common` device beside their own.

    Raises:
        MissingExtraError: Dask is not installed.
        OptionError: the port is taken.
        RunError: the scheduler does not start.
    """

    def __init__(self, names: Sequence[str], *, port: int, common: str = "") -> None:
        if find_spec("distributed") is None:
            raise MissingExtraError("a fleet needs Dask", extra="fleet")
        if _answers(port):
            raise OptionError(f"port {port} is taken", where="--port", hint="Give another")
        self.names, self.port, self.common = list(names), port, common
        self._folder = tempfile.TemporaryDirectory(prefix="trimtab-fleet-")
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._scheduler = self._start(
            "dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"
        )
        try:
            self._await_scheduler()
            for name in names:
                self.start_worker(name)
        except BaseException:
            self.close()
            raise

    def start_worker(self, name: str) -> None:
        """Start the worker of a device."""
        tokens = [f"{name}=1", *([f"{self.common}=1"] if self.common else [])]
        self.workers[name] = self._start(
            "dask_worker",
            *(f"tcp://127.0.0.1:{self.port}", "--host", "127.0.0.1", "--name", name),
            *("--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "30"),
            *("--local-directory", self._folder.name, "--resources", " ".join(tokens)),
        )

    def wait(self) -> None:
        """Wait for Ctrl-C, or for the end of the scheduler."""
        with contextlib.suppress(KeyboardInterrupt):
            self._scheduler.wait()

    def close(self) -> None:
        """End all processes."""
        for process in (*self.workers.values(), self._scheduler):
            process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for process in (*self.workers.values(), self._scheduler):
            try:
                process.wait(timeout=max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = Path(self._folder.name) / f"{module}-{len(self.workers)}.log"
        with log.open("wb") as file:
            return subprocess.Popen(  # noqa: S603 - Dask's own programs
                [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def _await_scheduler(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not _answers(self.port):
            if self._scheduler.poll() is not None or time.monotonic() > end:
                log = (Path(self._folder.name) / "dask_scheduler-0.log").read_text(errors="replace")
                what = f"the scheduler does not start: {last_line(log)}"
                raise RunError(what, where="fleet up")
            time.sleep(0.1)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
