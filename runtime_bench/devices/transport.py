"""How a bench reaches the agent that measures: two pipes to a process, wherever it runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from trimtab.core.errors import RunError


class Device(Protocol):
    """A place where an agent can be started."""

    @property
    def python(self) -> str:
        """The interpreter there."""
        ...

    def start(self, far: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Run a command there with pipes, out of reach of the terminal's Ctrl-C."""
        ...

    def failure(self, log: IO[bytes], code: int) -> RunError:
        """One message for what was said before it ended."""
        ...


@dataclass(frozen=True)
class LocalProcess:
    """This machine, in a process of its own: what a worker of a fleet measures on.

    Attributes:
        name: what the fleet calls it.
        python: the interpreter.
    """

    name: str = "this machine"
    python: str = sys.executable

    def __str__(self) -> str:
        return self.name

    def start(self, far: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """See `Device`."""
        pipe = subprocess.PIPE
        return subprocess.Popen(  # noqa: S603 - our own agent
            list(far), stdin=pipe, stdout=pipe, stderr=log, start_new_session=True
        )

    def failure(self, log: IO[bytes], code: int) -> RunError:
        """See `Device`."""
        log.seek(0)
        last = log.read().decode(errors="replace").strip().rpartition("\n")[2][:300]
        return RunError(
            f"its agent ended (exit code {code}){': ' + last if last else ''}", where=self.name
        )
