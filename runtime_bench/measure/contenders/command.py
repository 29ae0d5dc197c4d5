"""Whole commands as contenders: each run is a new process, from its start to its end."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import OptionError, RunError
from trimtab.core.ort.session import Feeds
from trimtab.core.text import duration_text

from ...machine.placement import Placement
from ..timing import Runs, time_calls
from ..workers.protocol import last_line
from .program import Program

#: Words that only a shell understands.
_SHELL = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>&1"})
#: Kept bytes of what a command writes to stderr.
_KEPT = 4096


@dataclass(frozen=True)
class Command(Program):
    """A command line, split into words as a shell does, and run without one.

    Raises:
        OptionError: it is empty, has an open quote, needs a shell, or its program is missing.
    """

    def __post_init__(self) -> None:
        words, where = self.words, f"command {self.text!r}"
        if not words:
            raise OptionError("is empty", where=where, hint="Write it as 'python pipeline.py'")
        needs = next((word for word in words if word in _SHELL), None)
        if needs is not None:
            raise OptionError(
                f"has {needs!r}, and no shell runs it",
                where=where,
                hint=f"Write {shlex.join(['sh', '-c', self.text])}",
            )
        program = Path(self.folder, words[0]) if os.path.dirname(words[0]) else words[0]  # noqa: PTH120
        if shutil.which(program) is None:
            raise OptionError(
                f"there is no program {str(program)!r} that can be run",
                where=where,
                hint="Check its name, its path and that it is executable",
            )

    @property
    def words(self) -> list[str]:
        """Program and arguments."""
        try:
            return shlex.split(self.text)
        except ValueError as error:
            raise OptionError(
                f"cannot be split into words ({error})",
                where=f"command {self.text!r}",
                hint="Close the quotes",
            ) from None

    def files(self) -> Iterator[Path]:
        """See `Program`; the program, and the files among its words."""
        program, *words = self.words
        found = shutil.which(program)
        if found:
            yield Path(found)
        yield from (path for word in words if (path := Path(self.folder, word)).is_file())

    def contender(self, limit_seconds: float) -> CommandContender:
        """See `Program`."""
        return CommandContender(self, limit_seconds)


class CommandContender:
    """Runs a command to its end, again and again; what it prints is not kept.

    The times include the start of the process, as its caller sees them. A RunError means that it
    failed, or was killed since its runs took longer than the limit.
    """

    always_new = True
    placement: Placement | None = None

    def __init__(self, command: Command, limit_seconds: float) -> None:
        self.name, self.worker, self.limit_seconds = command.text, None, limit_seconds
        self._words, self._folder = command.words, command.folder or None
        self._errors = _Tail()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def warm(self, feeds: Feeds) -> float:
        """See `Contender`; there are no feeds."""
        del feeds
        return float(self.time(1).ns[0])

    def renew(self) -> None:
        """See `Contender`; each run is a new process anyway."""

    def time(self, runs: int) -> Runs:
        """See `Contender`; switches are those of other processes, and not counted."""
        watchdog = threading.Timer(self.limit_seconds, self._kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            return Runs(time_calls(self._run, runs).ns)
        finally:
            watchdog.cancel()

    def close(self) -> None:
        """See `Contender`."""
        self._end()
        self._errors.close()

    def _run(self) -> None:
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own command
                self._words,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors.fd,
                start_new_session=True,  # so that its children can be killed with it
            )
        except OSError as error:
            raise RunError(f"cannot be started ({error})", where=self.name) from error
        if self._killed:  # before there was a process to end
            self._end()
        try:
            code = self._process.wait()
        except BaseException:
            self._end()
            raise
        if code != 0:
            raise self._failure(code)

    def _kill(self) -> None:
        self._killed = True
        self._end()

    def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:  # Windows
                process.kill()

    def _failure(self, code: int) -> RunError:
        if self._killed:
            limit = duration_text(self.limit_seconds * 1e9)
            return RunError(
                f"hangs: it did not end within {limit}, and was killed",
                where=self.name,
                hint="Give more --max-time, or a command that does less",
            )
        last = last_line(self._errors.close())
        how = f"with exit code {code}" if code > 0 else f"by {signal.Signals(-code).name}"
        return RunError(
            f"ends {how}{f'; its last output: {last}' if last else ''}",
            where=self.name,
            hint="Run it by hand: a command must end with exit code 0, each time",
        )


class _Tail:
    """Pipe of which the last bytes are kept; whoever writes much to it never waits for long."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        self._kept = b""
        self._open = True
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def close(self) -> str:
        """Close this end, and return the last text; a child that lives on may hold the other."""
        if self._open:
            self._open = False
            os.close(self.fd)
            self._thread.join(1.0)
        return self._kept.decode(errors="replace").strip()

    def _drain(self) -> None:
        while data := os.read(self._read, 1 << 16):
            self._kept = (self._kept + data)[-_KEPT:]
        os.close(self._read)
