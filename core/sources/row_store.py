"""Rows that take long to read, kept on disk as they are fed, so that they are read once.

Pictures and recordings are decoded and prepared, and user code is called, at the first pass over
them; later passes map what was written then. What files hold is found again by later commands, by
its content; what user code yields lasts as long as the process, as nothing tells whether it would
yield the same.

A store is a folder of segments, one for each process that wrote: arrays in `.bin`, and a line of
JSON for each item in `.index`. The oldest stores make room for new ones.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import itertools
import json
import math
import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..cache import cache_root
from ..data import Array, Source
from ..progress import Progress, Silent

T = TypeVar("T")
#: Bytes of all stores together.
LIMIT = 4_000_000_000
#: Bytes that arrays are aligned to.
_ALIGNED = 64
#: Seconds after which a store of user code is left over from a process that was killed.
_LEFT_OVER = 86400.0
_PROCESS = "process-"
_numbers = itertools.count()


@dataclass
class _Settings:
    """Settings of the running command.

    Attributes:
        limit: bytes of all stores together; 0 for none.
        progress: display of a first pass.
        opened: sources of the command by their names; None outside of one.
    """

    limit: int = LIMIT
    progress: Progress = field(default_factory=Silent)
    opened: dict[str, Source] | None = None


_settings = _Settings()


@contextlib.contextmanager
def rows_read_once(limit: int, progress: Progress) -> Iterator[None]:
    """Let a command open each data once, keep rows up to so many bytes, and show first passes."""
    global _settings  # noqa: PLW0603 - as there is one command
    before, _settings = _settings, _Settings(limit, progress, {})
    try:
        yield
    finally:
        _settings = before


def opened_once(name: str, make: Callable[[], Source]) -> Source:
    """Return the source of this name that the running command has opened already, or make it."""
    if _settings.opened is None:
        return make()
    if name not in _settings.opened:
        _settings.opened[name] = make()
    return _settings.opened[name]


def first_pass(items: Iterable[T], where: str, total: int | None = None) -> Iterator[T]:
    """Yield the items of a first pass and show how many are done."""
    return _settings.progress.track(items, f"reading {where}", total)


class RowStore:
    """Arrays by the number of an item.

    Args:
        content: function to a digest of what the items are made from; None where nothing tells.
    """

    def __init__(self, content: Callable[[], str] | None = None) -> None:
        self._content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return RowStore, ()  # another process has other files open

    @functools.cached_property
    def _files(self) -> _Files | None:
        if not _settings.limit:
            return None
        if self._content is None:
            name = f"{_PROCESS}{os.getpid()}-{next(_numbers)}"
        else:
            name = hashlib.sha256(f"{_version()}:{self._content()}".encode()).hexdigest()
        with contextlib.suppress(OSError):
            return _Files(cache_root() / "rows" / name)
        return None  # nothing can be written there: rows are read anew

    def get(self, item: int) -> dict[str, Array] | None:
        """Return the arrays of an item, mapped read-only; None where they are not kept."""
        return None if self._files is None else self._files.get(item)

    def put(self, item: int, arrays: Mapping[str, Array]) -> None:
        """Keep the arrays of an item if there is room for them."""
        if self._files is not None:
            self._files.put(item, arrays)

    def once(self, item: int, make: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        """Return the arrays of an item, made only where they are not kept."""
        found = self.get(item)
        if found is None:
            found = make()
            self.put(item, found)
        return found


@functools.cache
def _version() -> str:
    try:
        return version("trimtab")
    except PackageNotFoundError:
        return ""


#: Type, shape and offset in its file of an array.
_Place = tuple[str, tuple[int, ...], int]


class _Files:
    """Files of a store: the segments of earlier processes, and one of this."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        if folder.name.startswith(_PROCESS):
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self._items: dict[int, tuple[_Segment, dict[str, _Place]]] = {}
        for path in sorted(folder.glob("*.index")):
            with contextlib.suppress(OSError):
                segment = _Segment(path.with_suffix(".bin"))
                self._items |= {n: (segment, places) for n, places in segment.read_index()}
        self._own: _Segment | None = None
        self._room, self._full, self._process = 0, False, os.getpid()

    def get(self, item: int) -> dict[str, Array] | None:
        if item not in self._items:
            return None
        segment, places = self._items[item]
        try:
            return {name: segment.array(*place) for name, place in places.items()}
        except (OSError, ValueError):  # the disk is gone, or a file was cut
            del self._items[item]
            return None

    def put(self, item: int, arrays: Mapping[str, Array]) -> None:
        mine = self._process == os.getpid()  # a fork would write to the same place
        if self._full or not mine or not all(_plain(array) for array in arrays.values()):
            return
        try:
            if self._own is None:
                name = f"{os.getpid()}-{next(_numbers)}.bin"
                self._own = _Segment(self.folder / name, write=True)
                self._room = _room(self.folder)
            size = sum(array.nbytes + _ALIGNED for array in arrays.values())
            if size > self._room:
                self._full = True
                return
            self._room -= size
            self._items[item] = self._own, self._own.append(item, arrays)
        except OSError:  # the disk is full
            self._full = True


class _Segment:
    """File of arrays, and the file that tells where they are."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self.path, self.index = path, path.with_suffix(".index")
        self._out = path.open("wb") if write else None
        self._in = path.open("rb")
        self._map: mmap.mmap | None = None

    def read_index(self) -> Iterator[tuple[int, dict[str, _Place]]]:
        """Yield what was written whole: a process may be killed at any byte."""
        size = self.path.stat().st_size
        for line in self.index.read_text(encoding="utf-8").splitlines():
            try:
                item, found = json.loads(line)
                places = {n: (str(d), tuple(s), int(o)) for n, (d, s, o) in found.items()}
                ends = [o + _nbytes(d, s) for d, s, o in places.values()]
            except (ValueError, TypeError):
                continue
            if max(ends, default=0) <= size:
                yield item, places

    def append(self, item: int, arrays: Mapping[str, Array]) -> dict[str, _Place]:
        """Write the arrays of an item; return where they are."""
        assert self._out is not None
        places: dict[str, _Place] = {}
        for name, array in arrays.items():
            self._out.write(b"\0" * (-self._out.tell() % _ALIGNED))
            places[name] = array.dtype.str, array.shape, self._out.tell()
            self._out.write(np.ascontiguousarray(array).tobytes())
        self._out.flush()
        with self.index.open("a", encoding="utf-8") as file:
            file.write(json.dumps([item, places]) + "\n")
        return places

    def array(self, dtype: str, shape: tuple[int, ...], offset: int) -> Array:
        """Return an array of the file, mapped."""
        kind = np.dtype(dtype)
        end = offset + _nbytes(dtype, shape)
        if end == offset:
            return np.zeros(shape, kind)
        if self._map is None or len(self._map) < end:
            self._map = mmap.mmap(self._in.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, kind, math.prod(shape), offset).reshape(shape)


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _plain(array: Array) -> bool:
    """Return whether an array's type can be told in a few letters."""
    return not array.dtype.hasobject and np.dtype(array.dtype.str) == array.dtype


def _room(folder: Path) -> int:
    """Return the bytes that may be added, after the oldest stores have made room for them."""
    now, used = time.time(), 0
    stores = sorted(
        (path for path in folder.parent.iterdir() if path != folder and path.is_dir()),
        key=lambda path: -path.stat().st_mtime,
    )
    for store in stores:
        size = sum(file.stat().st_size for file in store.iterdir())
        process = store.name.startswith(_PROCESS)
        old = process and now - store.stat().st_mtime > _LEFT_OVER
        if old or (not process and used + size > _settings.limit // 2):
            shutil.rmtree(store, ignore_errors=True)
        else:
            used += size
    own = sum(file.stat().st_size for file in folder.iterdir())
    return max(0, min(_settings.limit - used - own, shutil.disk_usage(folder).free // 2))
