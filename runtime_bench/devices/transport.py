"""Transports: two pipes to an agent process, wherever it runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from trimtab.core.errors import RunError

from ..measure.workers.protocol import last_line, logged, start_process


class Device(Protocol):
    """Machine that can start an agent."""

    @property
    def python(self) -> str:
        """Path of its Python interpreter."""

    def start(self, words: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a command there with pipes, out of reach of the terminal's Ctrl-C."""

    def failure(self, log: IO[bytes], code: int) -> RunError:
        """Return one error for the output of a process that ended."""


@dataclass(frozen=True)
class LocalProcess:
    """This machine, in a process of its own, on which a worker of a fleet measures."""

    name: str = "this machine"
    python: str = sys.executable

    def __str__(self) -> str:
        return self.name

    def start(self, words: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """See `Device`."""
        return start_process(words, log)

    def failure(self, log: IO[bytes], code: int) -> RunError:
        """See `Device`."""
        last = last_line(logged(log))
        return RunError(
            f"its agent ended (exit code {code}){': ' + last if last else ''}", where=self.name
        )
