"""Disk cache of teacher outputs: memory-mapped files with a checksummed record for each item.

Each view has a file with a record for each item: a checksum and the outputs. A record is valid
where its checksum fits, so several runs may fill one file at once, and a run may be killed at any
time: all write the same bytes. Space is reserved before the file gets its name, since a disk that
fills under a mapped file would end the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Rows
from trimtab.core.errors import OutputError
from trimtab.core.files import write_text

#: Bytes to write at once.
_CHUNK = 1 << 24
Arrays = Mapping[str, NDArray[Any]]


class TeacherCache:
    """Cache of outputs by view and item.

    Args:
        folder: folder of the files; created where it is missing.
        key: digest of all that the outputs depend on, view and item aside.
        count: items of the source.
        say: receiver of the message that the disk fails.
    """

    def __init__(self, folder: Path, key: str, count: int, say: Callable[[str], None]) -> None:
        self.folder, self.key, self.count, self.say = folder, key, count, say
        self.usable = True
        self.files: dict[int, NDArray[Any]] = {}

    def get(self, view: int, rows: Rows) -> dict[str, NDArray[Any]] | None:
        """Return the outputs of these items, None where one is missing."""
        layout = self._layout() if self.usable else None
        records = self._records(view, layout) if layout is not None else None
        if layout is None or records is None:
            return None
        found = np.array(records[rows])
        if any(_checksum(record) != record["sum"] for record in found):
            return None
        return {name: found[f"f{i}"] for i, (name, *_) in enumerate(layout)}

    def put(self, view: int, rows: Rows, outputs: Arrays, *, whole: bool = False) -> None:
        """Store outputs, one row of each for an item; all of them for one item where `whole`."""
        rows_of = {n: a[None] if whole else a for n, a in outputs.items()}
        if not self.usable or any(len(a) != len(rows) for a in rows_of.values()):
            return
        layout = [[n, a.dtype.str, list(a.shape[1:])] for n, a in rows_of.items()]
        known = self._layout()
        if known is None:
            self._try(lambda: write_text(self._header, json.dumps(layout)))
        elif known != layout:
            return  # rows of another size, as sentences of another length, are not stored
        records = self._records(view, layout) if self.usable else None
        if records is None:
            return
        made = np.zeros(len(rows), records.dtype)
        for index, array in enumerate(rows_of.values()):
            made[f"f{index}"] = array
        for record in made:
            record["sum"] = _checksum(record)
        records[rows] = made

    @property
    def _header(self) -> Path:
        return self.folder / f"{self.key}.json"

    def _layout(self) -> list[list[Any]] | None:
        """Return name, type and shape of each output."""
        try:
            found: list[list[Any]] = json.loads(self._header.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def _records(self, view: int, layout: list[list[Any]]) -> NDArray[Any] | None:
        if view not in self.files:
            fields = [(f"f{i}", kind, tuple(shape)) for i, (_, kind, shape) in enumerate(layout)]
            dtype = np.dtype([("sum", "<u4"), *fields])
            path = self.folder / f"{self.key}.{view}"
            self._try(lambda: _create(path, dtype.itemsize * self.count))
            if not self.usable:
                return None
            self.files[view] = np.memmap(path, dtype, "r+", shape=(self.count,))
        return self.files[view]

    def _try(self, work: Callable[[], Any]) -> None:
        """Run a function; where the disk fails, report it and cache nothing from here on."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            work()
        except (OSError, OutputError) as error:
            self.usable = False
            reason = getattr(error, "strerror", None) or getattr(error, "what", None) or str(error)
            self.say(f"{self.folder}: {reason}; the teacher's outputs are not kept there")


def _create(path: Path, size: int) -> None:
    """Create a file of that size with all its space reserved, unless there is one."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size == size:
            return
        path.unlink()
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with contextlib.closing(os.fdopen(handle, "wb")) as file:
            _reserve(file, size)
        with contextlib.suppress(FileExistsError):  # another run was first
            os.link(scratch, path)
    finally:
        Path(scratch).unlink()


def _reserve(file: Any, size: int) -> None:
    """Reserve the space of a file; by writing zeros where the system has no other way."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, _CHUNK):
        file.write(bytes(min(_CHUNK, size - start)))


def _checksum(record: Any) -> int:
    """Return the checksum of all but the sum itself; never 0, which marks an empty record."""
    return zlib.crc32(record.tobytes()[4:]) or 1
