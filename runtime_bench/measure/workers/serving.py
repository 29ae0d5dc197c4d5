"""The process side of a worker: commands on stdin, answers on stdout, the end with the parent.

While another worker runs it blocks in `read`, so it takes no CPU time.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO

from trimtab.core.errors import RunError, TrimtabError

from ..timing import instruction_counter
from .protocol import Message, pack_error, receive, send


class CommandServer:
    """Executor of commands; each method named `do_*` is one, with the command's arguments."""

    name = "worker"

    def errors(self) -> AbstractContextManager[object]:
        """Return the context in which commands run, which may translate errors."""
        return contextlib.nullcontext()

    def answer(self, message: Message) -> Message:
        """Carry out one command; an error becomes an answer too."""
        arguments = dict(message)
        command: Callable[..., Message] = getattr(self, f"do_{arguments.pop('do')}")
        try:
            with self.errors():
                return command(**arguments)
        except TrimtabError as error:
            return pack_error(error)
        except MemoryError:
            return pack_error(RunError("runs out of memory", where=self.name))
        except Exception as error:  # noqa: BLE001 - a worker must always answer
            return pack_error(RunError(f"{type(error).__name__}: {error}", where=self.name))


def serve(server: CommandServer, commands: BinaryIO, answers: BinaryIO) -> None:
    """Answer commands until the other side closes."""
    while (message := receive(commands)) is not None:
        send(answers, server.answer(message))


def die_with_parent(
    folder: str | None, exit_now: Callable[[int], object] = os._exit, *, stdin: int = 0
) -> None:
    """Wait until the other end of stdin is closed, then remove the bench's folder and exit.

    A parent that was killed cannot do it. This runs in a thread, so it ends the process even in the
    middle of a run; `poll` without events wakes at a hang-up and consumes no input.
    """
    poller = select.poll()
    poller.register(stdin, 0)
    poller.poll()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    exit_now(0)


def serve_stdin(server: CommandServer, *, prints_to: int = 2) -> None:
    """Serve on stdin and stdout; what libraries print goes to another descriptor."""
    instruction_counter()  # before a session starts its threads
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    if hasattr(select, "poll"):  # not on Windows
        threading.Thread(target=die_with_parent, args=[folder], daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(prints_to, 1)
    try:
        serve(server, sys.stdin.buffer, answers)
    finally:
        # The thread notices the end as well, but maybe too late to remove the folder.
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
