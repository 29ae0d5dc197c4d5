"""A worker process that holds one session and runs it on command.

Started as `python -m trimtab.runtime_bench.measure.workers.worker`, it serves as `serving`
describes.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import onnx.parser

from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.ort.refusals import runtime_errors
from trimtab.core.ort.session import Feeds, SessionConfig, build_session
from trimtab.core.ort.telemetry import disable_telemetry

from ...machine.system import number_after
from ..feeds import read_feeds
from .caller import Caller, caller_of, placement_of
from .io_binding import open_session, without_capture
from .protocol import Message
from .serving import CommandServer, serve_stdin
from .throughput import ThroughputRunner

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

#: A tiny model, so that what the runtime needs for any model is not counted for the first one.
NOTHING = """
<ir_version: 8, opset_import: ["": 17]>
nothing (float[1] x) => (float[1] y) { y = Identity(x) }
"""


class Worker(CommandServer):
    """Executor of the commands of a model."""

    def __init__(self) -> None:
        self.session: Any = None
        self.config = SessionConfig()
        self.feeds: Feeds = {}
        self.caller: Caller | None = None
        self.name = "model"
        self.baseline_bytes = 0
        self.runners: dict[int, ThroughputRunner] = {}

    def errors(self) -> AbstractContextManager[object]:
        """See `CommandServer`; onnxruntime's errors become ours."""
        return runtime_errors(self.name)

    def do_load(self, model: str, config: Message, name: str) -> Message:
        """Build the session; before the first, build a tiny one that loads the runtime."""
        self.name = name
        self.config = SessionConfig.from_json(config)
        if not self.baseline_bytes:
            plain = without_capture(self.config)
            build_session(Model.from_proto(onnx.parser.parse_model(NOTHING)), plain)
        self._drop()
        self.baseline_bytes = reset_peak()
        start = time.perf_counter_ns()
        try:
            self.session = open_session(Path(model), self.config, name)
        except RunError as error:  # it names the file, which may be a temporary copy
            raise RunError(error.what, where=name, hint=error.hint) from error
        return {"load_ns": time.perf_counter_ns() - start}

    def _drop(self) -> None:
        """Free the previous session."""
        for runner in self.runners.values():
            runner.close()
        self.runners.clear()
        self.caller = self.session = None

    def do_feed(self, path: str) -> Message:
        """Take the feeds from an `.npz` file."""
        self.feeds, self.caller = read_feeds(Path(path)), None
        return {}

    def _caller(self) -> Caller:
        return caller_of(self.session, self.feeds, self.config)

    def do_time(self, runs: int) -> Message:
        """Time a number of consecutive runs."""
        self.caller = self.caller or self._caller()
        timed = self.caller.time(runs)
        return timed.to_json()

    def do_throughput(self, runs: int, concurrency: int) -> Message:
        """Time a number of bursts from `concurrency` threads."""
        if concurrency not in self.runners:
            self.runners[concurrency] = ThroughputRunner(
                [self._caller() for _ in range(concurrency)]
            )
        timed = self.runners[concurrency].time(runs)
        return timed.to_json()

    def do_place(self) -> Message:
        """Return the placement of the nodes, after a run; null for the CPU's own provider."""
        placement = placement_of(self.caller, self.name) if self.caller else None
        return {"placement": placement.to_json() if placement else None}

    def do_memory(self) -> Message:
        """Return the peak resident set since the load, above what the runtime took before."""
        return {"peak_bytes": max(0, peak_bytes() - self.baseline_bytes)}


def reset_peak() -> int:
    """Reset the peak and return the resident set, in bytes.

    If the kernel does not allow it, the old peak is the baseline, and what the model needs below it
    is not counted.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status_bytes("VmRSS:")
    except OSError:
        return peak_bytes()


def peak_bytes() -> int:
    """Return the peak resident set of this process, in bytes."""
    try:
        return _status_bytes("VmHWM:")
    except OSError:
        if not resource:
            return 0
        peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(key: str) -> int:
    return 1024 * (number_after(Path("/proc/self/status").read_text(), key) or 0)


def main() -> None:
    """Serve on stdin and stdout."""
    disable_telemetry()
    serve_stdin(Worker())


if __name__ == "__main__":
    main()
