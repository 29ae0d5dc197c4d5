"""Protocol of the bench and its workers: JSON documents, each after its length in eight bytes.

Nothing is unpickled, so a worker's bytes can at worst be rejected.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

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


def pack_error(error: TrimtabError) -> Message:
    """Turn an error into a message."""
    return {
        "error": type(error).__name__,
        "what": error.what,
        "where": error.where,
        "hint": error.hint,
    }


def unpack_error(message: Message) -> TrimtabError:
    """Restore the error that `pack_error` packed; a RunError if its class is unknown."""
    kind = getattr(errors, str(message["error"]), RunError)
    if not (isinstance(kind, type) and issubclass(kind, TrimtabError)):
        kind = RunError
    return kind(message["what"], where=message.get("where"), hint=message.get("hint"))
