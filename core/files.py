"""Output files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError


@contextlib.contextmanager
def atomic_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder beside the final place, on the same file system.

    Files are written there and then moved with `replace`, which is atomic within a file system.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".trimtab-", dir=parent))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_folder(path.parent) as scratch:
        (scratch / path.name).write_bytes(data)
        publish(scratch / path.name, path)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def publish(source: Path, path: Path) -> None:
    """Move a finished file to its place; its content reaches the disk before its name."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    if path.is_dir():
        raise OutputError("is a folder, not a file", where=str(path))
    source.replace(path)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into `OutputError`."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = "Free some space or choose another place with -o"
        else:
            hint = "Choose a place that can be written with -o"
        reason = error.strerror or str(error)
        raise OutputError(f"cannot be written ({reason})", where=str(path), hint=hint) from error
