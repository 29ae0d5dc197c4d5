"""Files of a folder that cannot be read: a few are left out, more are an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError

#: Part of the files that may be broken.
BROKEN = 0.01


def without_broken(
    files: Sequence[Path], broken: Sequence[Path], what: str, where: str
) -> list[Path]:
    """Return the files that can be read.

    Args:
        files: all files of the folder.
        broken: those that cannot be read.
        what: sentence about them, as `pictures cannot be decoded`.
        where: name of the folder.

    Raises:
        DataError: more than one of a hundred is broken; names the first.
    """
    if len(broken) > BROKEN * len(files):
        raise DataError(
            f"{len(broken)} of {len(files)} {what}, the first is {broken[0].name}",
            where=where,
            hint="Remove or replace them",
        )
    gone = set(broken)
    return [file for file in files if file not in gone]
