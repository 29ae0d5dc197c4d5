"""Tables as data: csv files of numbers, one row an item, with a column of labels."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data import Array
from ..errors import DataError, OptionError, unknown


def read_table(path: Path, options: Mapping[str, str]) -> tuple[Array, Array | None]:
    """Read a csv file.

    Args:
        path: file, with a line of names or without.
        options: `labels`: column of the labels, by name or by number from 0.

    Returns:
        Numbers (N, columns) float32 without the labels, and labels (N,) or None.

    Raises:
        DataError: it cannot be read, or a cell has no number; names its line and column.
        OptionError: an unknown option or column.
    """
    for key in set(options) - {"labels"}:
        raise unknown("option", key, ["labels"], where=str(path))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a csv file ({error})", where=str(path)) from error
    if not lines:
        raise DataError("has no rows", where=str(path), hint="Give at least one")
    names = [str(number) for number in range(len(lines[0][1]))]
    if not any(_is_number(cell) for cell in lines[0][1]):
        names, lines = [cell.strip() for cell in lines[0][1]], lines[1:]
    for line, row in lines:
        if len(row) != len(names):
            raise DataError(
                f"line {line} has {len(row)} columns, the first {len(names)}", where=str(path)
            )
    labels = None
    if "labels" in options:
        column = _column(options["labels"], names, path)
        labels = _labels([row[column].strip() for _, row in lines])
        lines = [(line, [*row[:column], *row[column + 1 :]]) for line, row in lines]
        names = [*names[:column], *names[column + 1 :]]
    return _numbers(lines, names, path), labels


def _column(text: str, names: Sequence[str], path: Path) -> int:
    if text in names:
        return names.index(text)
    if text.isdigit() and int(text) < len(names):
        return int(text)
    raise OptionError(
        f"has no column {text!r}",
        where=str(path),
        hint=f"Its columns: {', '.join(names[:12])}, or 0 to {len(names) - 1}",
    )


def _labels(cells: Sequence[str]) -> Array:
    """Return whole numbers where all are, else numbers, else the texts."""
    if all(_is_number(cell) for cell in cells):
        numbers = np.array(cells, np.float64)
        whole = bool((numbers == np.round(numbers)).all())
        return numbers.astype(np.int64) if whole else numbers
    return np.array(cells)


def _numbers(lines: Sequence[tuple[int, Sequence[str]]], names: Sequence[str], path: Path) -> Array:
    try:
        return np.array([row for _, row in lines], np.float32).reshape(len(lines), -1)
    except ValueError:
        pass
    line, column, cell = next(
        (line, names[column], cell)
        for line, row in lines
        for column, cell in enumerate(row)
        if not _is_number(cell)
    )
    raise DataError(
        f"line {line} has {cell!r} in column {column}, which is not a number",
        where=str(path),
        hint="Name the column of the labels: FILE.csv?labels=COLUMN, and leave out other texts",
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
