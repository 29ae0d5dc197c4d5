"""Contender timed by onnxruntime_perf_test: each slot of a block is a process of its own.

The program runs once to warm up, and the next runs still get faster, so the first rows of each
process are dropped. It writes rows `model,seconds,peak bytes,CPU share,run`.
"""

from __future__ import annotations

import hashlib
import shlex
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from trimtab.core.errors import RunError
from trimtab.core.ort.session import Feeds, SessionConfig

from ..machine.placement import Placement
from ..measure.subject import Subject
from ..measure.timing import Runs
from ..measure.workers.protocol import last_line
from .agent_store import MODEL, digest_of
from .bundles import model_files
from .shells import BareDevice

#: Rows dropped, and least rows of a process, whose start is the expensive part.
WARM_ROWS, ROWS = 2, 20
#: The program's spelling of the optimization levels.
_LEVELS = {"off": "0", "basic": "1", "extended": "2", "all": "99"}


class PerfTestContender:
    """A model, timed by a new process of the program in each slot."""

    always_new = True
    worker: Any = None
    placement: Placement | None = None

    def __init__(
        self, device: BareDevice, subject: Subject, name: str, config: SessionConfig, folder: Path
    ) -> None:
        self.device, self.subject, self.name = device, subject, name
        self.config, self._folder, self._place = config, folder, ""

    def warm(self, feeds: Feeds) -> float:
        """Copy model and inputs there, once for each pair of digests, and run one process."""
        files = model_files(self.subject, self._folder)
        digest = hashlib.sha256(f"{digest_of(files)}{_digest(feeds)}".encode()).hexdigest()[:32]
        self._place, shell = f"{self.device.folder}/{digest}", self.device.shell
        if not check_on_device(self.device, f"-f {shlex.quote(self._place)}/whole"):
            data = f"{self._place}/test_data_set_0"
            shell.run(["mkdir", "-p", data])
            for name, path in files:
                shell.put(path, f"{self._place}/{name}")
            for index, (name, array) in enumerate(feeds.items()):
                file = self._folder / f"input_{index}.pb"
                tensor = numpy_helper.from_array(np.asarray(array), name)
                file.write_bytes(tensor.SerializeToString())
                shell.put(file, f"{data}/{file.name}")
            shell.run(["touch", f"{self._place}/whole"])
        return float(self.time(1).ns[0])

    def renew(self) -> None:
        """Do nothing: each slot has a new session."""

    def time(self, runs: int) -> Runs:
        """Time one process of at least `ROWS` runs."""
        out = f"{self._place}/{uuid.uuid4().hex}.csv"
        count = WARM_ROWS + max(runs, ROWS)
        taskset = ["taskset", self.device.taskset] if self.device.taskset else []
        level = _LEVELS[self.config.level]
        command = [
            *(*taskset, self.device.perf_test, "-e", "cpu", "-m", "times", "-r", str(count)),
            *("-x", str(self.config.threads or 0), "-o", level, "-D"),
            *(f"{self._place}/{MODEL}", out),
        ]
        # One command, since each costs a connection. It prints the rows, or the log without them.
        there, log = shlex.quote(out), shlex.quote(f"{out}.log")
        line = f"{shlex.join(command)} > {log} 2>&1; cat {there} 2> /dev/null || cat {log}"
        output = self.device.shell.run(["sh", "-c", f"{line}; rm -f {there} {log}"])
        return Runs(parse_latencies(output, str(self.device))[WARM_ROWS:])

    def close(self) -> None:
        """Do nothing: no resources are held."""


def parse_latencies(rows: str, where: str) -> tuple[int, ...]:
    """Return the nanoseconds in the rows that the program wrote."""
    found = []
    for row in rows.splitlines():
        cells = row.split(",")
        if len(cells) < 5:
            continue
        try:
            found.append(round(float(cells[-4]) * 1e9))
        except ValueError:
            break
    if len(found) <= WARM_ROWS or min(found) <= 0:
        last = last_line(rows)
        raise RunError(
            f"onnxruntime_perf_test wrote no times{': ' + last if last else ''}", where=where
        )
    return tuple(found)


def _digest(feeds: Feeds) -> str:
    total = hashlib.sha256()
    for name, array in sorted(feeds.items()):
        plain = np.ascontiguousarray(array)
        total.update(f"{name}:{plain.dtype}:{plain.shape}:".encode() + plain.tobytes())
    return total.hexdigest()


def check_on_device(device: BareDevice, test: str) -> bool:
    """Return whether a `test` of the shell there is true."""
    return "yes" in device.shell.run(["sh", "-c", f"test {test} && echo yes; exit 0"])
