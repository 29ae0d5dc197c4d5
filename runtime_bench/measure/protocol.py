"""How the bench and its workers talk: JSON documents, each behind its length in eight bytes.

Nothing is unpickled, so that a worker's bytes can at worst be refused.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from trimtab.core import errors
from trimtab.core.errors import RunError, TrimtabError

Message = dict[str, Any]
#: No answer comes near; a larger length means that something else wrote into the pipe.
LARGEST_BYTES = 1 << 30


def send(stream: BinaryIO, message: Message) -> None:
    """Write one message and flush it.

    Raises:
        OSError: the other side is gone.
    """
    data = json.dumps(message).encode()
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


def receive(stream: BinaryIO) -> Message | None:
    """Read one message; None where the other side is gone, in the middle of a message or not.

    Raises:
        RunError: the bytes are no message.
    """
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "big")
    if size > LARGEST_BYTES:
        raise RunError("a worker's answer is no message", where="worker")
    data = stream.read(size)
    if len(data) < size:
        return None
    try:
        message = json.loads(data)
    except ValueError as error:
        raise RunError("a worker's answer is no JSON", where="worker") from error
    if not isinstance(message, dict):
        raise RunError("a worker's answer is no JSON object", where="worker")
    return message


def pack_error(error: TrimtabError) -> Message:
    """An error as a message."""
    return {
        "error": type(error).__name__,
        "what": error.what,
        "where": error.where,
        "hint": error.hint,
    }


def unpack_error(message: Message) -> TrimtabError:
    """The error that `pack_error` wrote; a RunError where its class is none of ours."""
    kind = getattr(errors, str(message["error"]), RunError)
    if not (isinstance(kind, type) and issubclass(kind, TrimtabError)):
        kind = RunError
    return kind(message["what"], where=message.get("where"), hint=message.get("hint"))
