"""A process that holds one session and runs it when it is told to.

Started as `python -m trimtab.runtime_bench.worker`, it reads commands on stdin and answers on
stdout. It waits in `read` while another worker has the baton, so it takes nothing from it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx.parser

from trimtab.core.errors import RunError, TrimtabError
from trimtab.core.model import Model
from trimtab.core.session import Feeds, SessionConfig, build_session, runtime_errors

from .arms import time_runs
from .flood import Flood
from .wire import Message, pack_error, receive, send

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

PR_SET_PDEATHSIG = 1
#: What the runtime needs for any model is its own, and no model's.
NOTHING = """
<ir_version: 8, opset_import: ["": 17]>
nothing (float[1] x) => (float[1] y) { y = Identity(x) }
"""


class Worker:
    """Carries out commands; each method named `do_*` is one, its keywords the command's."""

    def __init__(self) -> None:
        self.session: Any = None
        self.feeds: Feeds = {}
        self.name = "model"
        self.baseline_bytes = 0
        self.floods: dict[int, Flood] = {}

    def answer(self, message: Message) -> Message:
        """Carry out one command; an error becomes an answer as well."""
        arguments = dict(message)
        command: Callable[..., Message] = getattr(self, f"do_{arguments.pop('do')}")
        try:
            with runtime_errors(self.name):
                return command(**arguments)
        except TrimtabError as error:
            return pack_error(error)
        except MemoryError:
            return pack_error(RunError("runs out of memory", where=self.name))
        except Exception as error:  # noqa: BLE001 - a worker must answer whatever happens
            return pack_error(RunError(f"{type(error).__name__}: {error}", where=self.name))

    def do_load(self, model: str, config: Message, name: str) -> Message:
        """Build the session, the first after a tiny one that brings in the runtime itself."""
        self.name = name
        settings = SessionConfig.from_json(config)
        if not self.baseline_bytes:
            build_session(Model.from_proto(onnx.parser.parse_model(NOTHING)), settings)
        self._drop()
        self.baseline_bytes = reset_peak()
        start = time.perf_counter_ns()
        try:
            self.session = build_session(Path(model), settings)
        except RunError as error:  # it names the file, which may be a copy of ours
            raise RunError(error.what, where=name, hint=error.hint) from error
        return {"load_ns": time.perf_counter_ns() - start}

    def _drop(self) -> None:
        """Free the session that was."""
        for flood in self.floods.values():
            flood.close()
        self.floods.clear()
        self.session = None

    def do_feed(self, path: str) -> Message:
        """Take the feeds from an `.npz` file."""
        with np.load(path, allow_pickle=False) as arrays:
            self.feeds = {name: arrays[name] for name in arrays.files}
        return {}

    def do_time(self, runs: int) -> Message:
        """Run that many times in a row."""
        timed = time_runs(self.session, self.feeds, runs)
        return {"ns": timed.ns, "switches": timed.switches}

    def do_flood(self, runs: int, concurrency: int) -> Message:
        """Run that many bursts from `concurrency` threads at once."""
        if concurrency not in self.floods:
            self.floods[concurrency] = Flood(self.session, self.feeds, concurrency)
        timed = self.floods[concurrency].time(runs)
        return {"ns": timed.ns, "switches": timed.switches}

    def do_memory(self) -> Message:
        """Peak resident set since the session was built, above what the runtime took before."""
        return {"peak_bytes": max(0, peak_bytes() - self.baseline_bytes)}


def reset_peak() -> int:
    """Start the peak anew and return what is resident now, in bytes.

    Where the kernel does not let us, the old peak is the baseline, and what the model needs within
    it is not counted.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status_bytes("VmRSS:")
    except OSError:
        return peak_bytes()


def peak_bytes() -> int:
    """Peak resident set of this process."""
    try:
        return _status_bytes("VmHWM:")
    except OSError:
        if not resource:
            return 0
        peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(key: str) -> int:
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index(key) + 1]) * 1024 if key in words else 0


def serve(commands: BinaryIO, answers: BinaryIO) -> None:
    """Answer commands until the other side is gone."""
    worker = Worker()
    while (message := receive(commands)) is not None:
        send(answers, worker.answer(message))


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, in the middle of a run as well."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve on stdin and stdout; what libraries print goes to stderr instead."""
    if sys.platform == "linux":
        die_with_parent()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
