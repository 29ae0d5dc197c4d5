"""Output files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .errors import OutputError

#: Names of standard output where a file is expected.
STDOUT = frozenset({"-", "/dev/stdout"})
#: Free space that is asked for at least.
_LEAST_BYTES = 64 << 10


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
    """Write `data` to `path`, whole or not at all; `-` is standard output.

    A device or a pipe is written to, never replaced; behind a link it is the file that is replaced.
    """
    if str(path) in STDOUT:
        with writing(path):
            _write_to_stdout(data)
        return
    if is_stream(path):
        with writing(path), path.open("wb") as stream:
            stream.write(data)
        return
    path = behind_links(path)
    with atomic_folder(path.parent) as scratch:
        (scratch / path.name).write_bytes(data)
        publish(scratch / path.name, path)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all; see `write_bytes`."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def publish(source: Path, path: Path) -> None:
    """Move a finished file to its place; its content reaches the disk before its name."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    if path.is_dir():
        raise OutputError("is a folder, not a file", where=str(path))
    source.replace(path)


def is_stream(path: Path) -> bool:
    """Return whether a path is a device, a pipe or a socket, itself or behind links."""
    return path.exists() and not path.is_file() and not path.is_dir()


def behind_links(path: Path) -> Path:
    """Return the file that a link leads to, or the path itself; a link stays where it is.

    Raises:
        OutputError: links that lead to each other.
    """
    if not path.is_symlink():
        return path
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise OutputError("is a link to itself", where=str(path)) from error


class _Standard:
    """Standard output, where the command line keeps it apart from its messages."""

    output: TextIO | None = None


@contextlib.contextmanager
def standard_output(stream: TextIO) -> Iterator[None]:
    """Let a file named `-` be this stream."""
    before, _Standard.output = _Standard.output, stream
    try:
        yield
    finally:
        _Standard.output = before


def _write_to_stdout(data: bytes) -> None:
    stream = _Standard.output or sys.stdout
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()


def file_for(output: str | Path, name: str) -> Path:
    """Return the file to write: the output itself, or one of this name in it where it is a folder.

    A folder whose own name ends like a file's is refused.

    Raises:
        OutputError: it is a folder with a suffix, or empty.
    """
    if not str(output):
        raise OutputError("names no file", where="''", hint="Name the file with -o")
    path = Path(output)
    if not path.is_dir():
        return path
    if path.suffix:
        raise OutputError("is a folder, not a file", where=str(path), hint="Choose another name")
    return path / name


def in_folder(path: str | Path, name: str) -> Path:
    """Return the file of this name where the path is a folder, else the path itself."""
    return Path(path) / name if Path(path).is_dir() else Path(path)


def check_output_file(path: str | Path, *sources: str, parents: bool = False) -> None:
    """Refuse a file that cannot be written before the work is done, not after.

    Args:
        path: the file to write.
        sources: files that are read and must not be overwritten.
        parents: whether folders above that of the file are made too.

    Raises:
        OutputError: there is no such folder, it cannot be written, its disk is full, or the file is
            one of the sources.
    """
    path = Path(path)
    if str(path) in STDOUT:
        return
    for source in sources:
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise OutputError(
                "is the input as well, which would be overwritten",
                where=str(path),
                hint="Choose another place with -o, or give --force",
            )
    if is_stream(path):
        if not os.access(path, os.W_OK):
            raise OutputError("cannot be written", where=str(path), hint="Choose another with -o")
        return
    path = behind_links(path)
    if path.is_dir():
        raise OutputError("is a folder, not a file", where=str(path), hint="Choose another name")
    if not parents and not path.parent.parent.exists():
        hint = f"Make the folder {path.parent}, or choose another place"
        raise OutputError("there is no such folder", where=str(path), hint=hint)
    least = sum(Path(source).stat().st_size for source in sources if Path(source).is_file())
    check_folder(path.parent, least // 8)


def check_folder(folder: str | Path, expected_bytes: int = 0) -> None:
    """Refuse a folder that cannot be made or written, or whose disk is full.

    Raises:
        OutputError: see above.
    """
    existing = Path(folder).absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    with atomic_folder(existing) as scratch, (scratch / "probe").open("wb") as file:
        size = max(expected_bytes, _LEAST_BYTES)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # claims the blocks, writes nothing
        else:
            file.write(bytes(_LEAST_BYTES))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into `OutputError`."""
    try:
        yield
    except BrokenPipeError:  # the reader has enough: not an error of the place
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            hint = "Free some space or choose another place with -o"
        else:
            hint = "Choose a place that can be written with -o"
        reason = error.strerror or str(error)
        raise OutputError(f"cannot be written ({reason})", where=str(path), hint=hint) from error
