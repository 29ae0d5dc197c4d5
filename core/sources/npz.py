"""Memory-mapped arrays of an `.npz`.

Uncompressed members, as `numpy.savez` writes them, are mapped in place; compressed ones are
unpacked once to a temporary file, which is mapped.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import math
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from ..data import Array
from ..errors import DataError

#: Most axes of an array of numpy.
_MOST_AXES = 64
#: Deflate packs at most 1,032 bytes into one.
_MOST_TIMES = 1100


def read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Map one array of an `.npz` into memory."""
    with archive.open(info) as stream:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        if dtype.hasobject:
            raise DataError(
                f"array {info.filename.removesuffix('.npy')!r} holds pickled objects, which are "
                "refused",
                where=str(path),
                hint="Save texts as array.astype(str), and rows padded to one length",
            )
        if min(shape, default=0) < 0 or len(shape) > _MOST_AXES:
            raise ValueError(f"array {info.filename!r} has the shape {shape[:8]}")
        if 0 in shape:
            return np.zeros(shape, dtype)
        if not shape:  # a scalar; it cannot be mapped
            return np.frombuffer(stream.read(dtype.itemsize), dtype).reshape(())
        size = math.prod(shape) * dtype.itemsize
        if info.compress_type == zipfile.ZIP_STORED:
            offset = _data_offset(path, info) + stream.tell()
            end = offset + size
            if end > path.stat().st_size:
                raise EOFError(f"array {info.filename!r} is cut short")
            return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
        check_unpacked(info, size, _scratch())
        content = f"{path}{info.filename}{info.CRC}{info.file_size}"
        scratch = _scratch() / f"{hashlib.sha256(content.encode()).hexdigest()}.npy"
        if not scratch.exists():  # else an array may be mapped to it, which no write may change
            part = scratch.with_suffix(".part")
            with part.open("wb") as file:
                _copy(stream, file, size)
            part.replace(scratch)
        return np.memmap(scratch, dtype, "r", 0, shape, "F" if fortran else "C")


def check_unpacked(info: zipfile.ZipInfo, size: int, folder: Path) -> None:
    """Refuse a member that unpacks to more than its packed bytes can hold, or than the disk has.

    Raises:
        ValueError: says how large it would be.
    """
    free = shutil.disk_usage(folder).free
    if size > max(info.compress_size, 1) * _MOST_TIMES or size > free:
        raise ValueError(
            f"array {info.filename!r} unpacks from {info.compress_size:,} to {size:,} bytes; "
            f"{free:,} are free in {folder}"
        )


def _copy(stream: IO[bytes], file: IO[bytes], size: int) -> None:
    """Copy the bytes of an array and no more, whatever follows them."""
    left = size
    while left:
        part = stream.read(min(left, 1 << 20))
        if not part:
            raise EOFError("an array is cut short")
        file.write(part)
        left -= len(part)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the offset of a member's data, after its local header (ZIP specification 4.3.7)."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = np.frombuffer(file.read(4), "<u2")
    return info.header_offset + 30 + int(name) + int(extra)


@functools.cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="trimtab-data-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
