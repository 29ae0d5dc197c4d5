"""Protocol of the bench and its processes: JSON documents, each after its length in eight bytes.

Nothing is unpickled, so a worker's bytes can at worst be rejected.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any, BinaryIO

from trimtab.core import errors
from trimtab.core.errors import RunError, TrimtabError

Message = dict[str, Any]
#: Far above any answer; a larger length means that something else wrote into the pipe.
LARGEST_BYTES = 1 << 30


def send(stream: BinaryIO, message: Message) -> None:
    """Write one message and flush it.

    Raises:
        OSError: the other side has closed.
    """
    data = json.dumps(message).encode()
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


def receive(stream: BinaryIO) -> Message | None:
    """Read one message; None if the other side has closed, even in the middle of a message.

    Raises:
        RunError: the bytes are not a valid message.
    """
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "big")
    if size > LARGEST_BYTES:
        raise RunError("a worker's answer is not a message", where="worker")
    data = stream.read(size)
    if len(data) < size:
        return None
    try:
        message = json.loads(data)
    except ValueError as error:
        raise RunError("a worker's answer is not JSON", where="worker") from error
    if not isinstance(message, dict):
        raise RunError("a worker's answer is not a JSON object", where="worker")
    return message


class Inbox:
    """Messages of a process, received in a thread; the last is None, for the end of its output."""

    def __init__(self, stream: BinaryIO) -> None:
        self._queue: queue.SimpleQueue[Message | RunError | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=[stream], daemon=True).start()

    def get(self, seconds: float) -> Message | None:
        """Wait for the next message.

        Raises:
            queue.Empty: none came in this time.
            RunError: the process wrote something else.
        """
        found = self._queue.get(timeout=seconds)
        if isinstance(found, RunError):
            raise found
        return found

    def _listen(self, stream: BinaryIO) -> None:
        try:
            while (message := receive(stream)) is not None:
                self._queue.put(message)
        except RunError as error:
            self._queue.put(error)
        except (OSError, ValueError):  # closed meanwhile
            pass
        self._queue.put(None)


def start_process(
    command: Sequence[str], log: IO[bytes], env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program with pipes and a log of its stderr, out of reach of the terminal's Ctrl-C."""
    pipe = subprocess.PIPE
    return subprocess.Popen(  # noqa: S603 - our own module, or the user's own device
        list(command), stdin=pipe, stdout=pipe, stderr=log, env=env, start_new_session=True
    )


def logged(log: IO[bytes]) -> str:
    """Return what a process wrote to its log."""
    log.seek(0)
    return log.read().decode(errors="replace").strip()


def last_line(text: str) -> str:
    """Return the last line of an output, cut to 300 characters."""
    return text.strip().rpartition("\n")[2][:300]


def pack_error(error: TrimtabError) -> Message:
    """Turn an error into a message."""
    fields = {"what": error.what, "where": error.where, "hint": error.hint}
    return {"error": type(error).__name__, **fields}


def unpack_error(message: Message) -> TrimtabError:
    """Restore the error that `pack_error` packed; a RunError if its class is unknown."""
    kind = getattr(errors, str(message["error"]), RunError)
    if not (isinstance(kind, type) and issubclass(kind, TrimtabError)):
        kind = RunError
    return kind(message["what"], where=message.get("where"), hint=message.get("hint"))
