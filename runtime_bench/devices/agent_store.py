"""Files on a device, stored by the digest of their bytes, and the lock of the device."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from trimtab.core.cache import cache_root
from trimtab.core.errors import OutputError, RunError
from trimtab.core.files import write_text

#: Space for files on a device; the least recently used are removed first.
QUOTA_BYTES = 2 << 30
#: File names of a model and of feeds; external data of a model keeps its own names.
MODEL, FEEDS = "model.onnx", "feeds.npz"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_CHUNK = 1 << 20


class ModelStore:
    """Models and feeds in a folder of the user's cache, and the lock of the device.

    Beyond a quota of bytes the least recently used files are removed.

    Raises:
        OutputError: the folder cannot be created.
    """

    def __init__(self, folder: Path, quota: int = QUOTA_BYTES) -> None:
        self.folder, self.quota = folder, quota
        # Shared by all threads. The system releases it when the process ends, however it ends, so
        # it never goes stale.
        self._lock = FileLock(folder / "lock", timeout=0, thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _full(folder, error) from error

    @classmethod
    def here(cls) -> ModelStore:
        """Return the store of this user."""
        return cls(cache_root() / "device")

    def has(self, digest: str) -> bool:
        """Return whether the files of a digest are here."""
        return self._place(digest).is_dir()

    def model(self, digest: str) -> Path:
        """Return the path of a model; a RunError if it is not here."""
        return self._file(digest, MODEL)

    def feeds(self, digest: str) -> Path:
        """Return the path of a file of feeds; a RunError if it is not here."""
        return self._file(digest, FEEDS)

    def put(self, digest: str, files: Sequence[tuple[str, int]], stream: BinaryIO) -> None:
        """Store files of some names and sizes, all or none; the stream is read in any case.

        Raises:
            OutputError: the disk is full.
            RunError: a name is not valid, or the bytes do not match the digest.
        """
        place, left = self._place(digest), sum(size for _, size in files)
        problem: OutputError | None = None
        total = hashlib.sha256()
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="coming-") as scratch:
            for name, size in files:
                if not _NAME.fullmatch(name):
                    for _ in _chunks(stream, left, total):
                        pass
                    raise RunError(f"{name!r} is not a plain file name", where="device")
                left -= size
                total.update(f"{name}:{size}:".encode())
                problem = _receive(stream, size, Path(scratch) / name, total) or problem
            if problem is not None:
                raise problem
            if total.hexdigest() != digest:
                raise RunError("files came with other bytes than announced", where="device")
            self._make_room(sum(size for _, size in files))
            if not place.is_dir():
                Path(scratch).rename(place)
                Path(scratch).mkdir()  # for its removal

    def lock(self, who: str) -> dict[str, Any] | None:
        """Lock the device for this process; return None, else `who` holds it and `since` when."""
        # The holder has a file of its own, since trying a lock may empty the lock's file.
        holder = self.folder / "holder.json"
        if self._lock.is_locked:
            return None
        try:
            self._lock.acquire()
        except Timeout:
            try:
                found: dict[str, Any] = json.loads(holder.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return {"who": "another run", "since": 0.0}
            return found
        mine = {"who": who[:200], "since": time.time(), "pid": os.getpid()}
        try:
            write_text(holder, json.dumps(mine))
        except BaseException:
            self._lock.release()
            raise
        return None

    def free_bytes(self) -> int:
        """Return the free space of the folder's disk."""
        return shutil.disk_usage(self.folder).free

    def _place(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise RunError(f"{digest[:80]!r} is not a digest", where="device")
        return self.folder / digest

    def _file(self, digest: str, name: str) -> Path:
        path = self._place(digest) / name
        if not path.is_file():
            raise RunError("was not sent, or was removed meanwhile", where=digest[:12])
        with contextlib.suppress(OSError):
            os.utime(path.parent)
        return path

    def _make_room(self, coming: int) -> None:
        kept = [p for p in self.folder.iterdir() if p.is_dir() and _DIGEST.fullmatch(p.name)]
        kept.sort(key=lambda p: p.stat().st_mtime)
        sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in kept}
        over = sum(sizes.values()) + coming - self.quota
        for path in kept:
            # The files of this run were used a moment ago and stay.
            if over <= 0 or time.time() - path.stat().st_mtime < 3600:
                return
            shutil.rmtree(path, ignore_errors=True)
            over -= sizes[path]


def digest_of(files: Sequence[tuple[str, Path]]) -> str:
    """Return the SHA-256 of names, sizes and bytes of files, which `put` checks."""
    total = hashlib.sha256()
    for name, path in files:
        total.update(f"{name}:{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
    return total.hexdigest()


def _receive(stream: BinaryIO, size: int, path: Path, total: Any) -> OutputError | None:
    """Write bytes to a file; after a problem read on, up to the next command."""
    chunks = _chunks(stream, size, total)
    try:
        with path.open("wb") as file:
            file.writelines(chunks)
    except OSError as error:
        for _ in chunks:
            pass
        return _full(path.parent, error)
    return None


def _chunks(stream: BinaryIO, size: int, total: Any) -> Iterator[bytes]:
    """Yield the bytes of a file from a stream, and add them to a digest."""
    while size:
        chunk = stream.read(min(size, _CHUNK))
        if not chunk:
            raise RunError("the connection broke while a file was sent", where="device")
        size -= len(chunk)
        total.update(chunk)
        yield chunk


def _full(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot be written ({error.strerror or error})",
        where=f"{folder} on the device",
        hint="Free some space there, or set TRIMTAB_CACHE there to a disk that has some",
    )
