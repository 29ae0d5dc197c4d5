"""Notes of a process about what foreign code does now, for the process that watches over it.

onnxruntime aborts on some models and never returns from others, and neither can be caught where
it happens. The command line runs in a child process (`trimtab/supervisor.py`); its parent reads the
note that is kept here, in memory that both share, and so can say what died or hung on which model.
Without such a parent nothing is noted.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Iterator

#: Seconds that a single call may take; `TRIMTAB_HANG_SECONDS` replaces it.
HANG_SECONDS = 30.0
#: Further seconds for each unit of work: a row that is fed, or some nodes to load.
SECONDS_EACH = 5.0
_HEAD = struct.Struct("=qdH")  # when it began in ns, 0 for nothing; seconds allowed; length of text
_SIZE = 4096


class Note:
    """One page of memory, shared between a process and its children."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _SIZE)

    def write(self, began_ns: int, seconds: float, text: str) -> None:
        """Replace the note."""
        data = text.encode(errors="replace")[: _SIZE - _HEAD.size]
        self._page[:8] = bytes(8)  # nobody may read half of it
        self._page[_HEAD.size : _HEAD.size + len(data)] = data
        self._page[8 : _HEAD.size] = _HEAD.pack(0, seconds, len(data))[8:]
        self._page[:8] = began_ns.to_bytes(8, "little")

    def read(self) -> tuple[int, float, str]:
        """Return when it began (`time.monotonic_ns`, 0 for nothing), seconds allowed, and text."""
        _, seconds, length = _HEAD.unpack(self._page[: _HEAD.size])
        data = self._page[_HEAD.size : _HEAD.size + length]
        return int.from_bytes(self._page[:8], "little"), seconds, data.decode(errors="replace")


class _Watched:
    """The note of this process; None where nobody reads it."""

    note: Note | None = None


def watch_by(note: Note) -> None:
    """Keep notes here from now on, since a parent reads them."""
    _Watched.note = note


@contextlib.contextmanager
def foreign_call(doing: str, units: float = 0.0) -> Iterator[None]:
    """Note that foreign code is running, for as long as the block lasts.

    Args:
        doing: what it does on which model, as in `onnxruntime, running m.onnx`.
        units: rows that are fed, or how large is what is loaded; each allows more time.
    """
    note = _Watched.note
    if note is None:
        yield
        return
    before = note.read()
    seconds = float(os.environ.get("TRIMTAB_HANG_SECONDS") or HANG_SECONDS)
    note.write(time.monotonic_ns(), seconds + SECONDS_EACH * units, doing)
    try:
        yield
    finally:
        note.write(*before)
