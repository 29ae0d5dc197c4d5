"""Tables as data: csv and parquet files, one row an item, with a column of labels."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ..data import Array, Batch, Rows, Source
from ..errors import DataError, MissingExtraError, OptionError, unknown
from ..model import TensorSpec
from .arrays import ArraySource, digest_of

#: Endings of the files of tables.
TABLES = frozenset({".csv", ".parquet"})
_OPTIONS = ("labels", "columns", "text", "tokenizer", "length")


class Column:
    """Values of a column, and what a message calls each row."""

    def __init__(self, values: Sequence[Any], places: Sequence[str]) -> None:
        self.values, self.places = values, places

    @property
    def texts(self) -> list[str]:
        """The values as texts; what is missing is empty."""
        return ["" if value is None else str(value) for value in self.values]

    @property
    def array(self) -> Array:
        """Return the values as numbers where all are some, else as texts (N,)."""
        try:
            return self.numbers("", Path())
        except DataError:
            return np.array(self.texts)

    def numbers(self, name: str, path: Path) -> Array:
        """Return the values as numbers.

        Raises:
            DataError: one of them is not a number.
        """
        try:
            array = np.array(self.values, np.float64)
        except (ValueError, TypeError):
            pass
        else:
            if all(value is not None for value in self.values):
                whole = bool((array == np.round(array)).all())
                return array.astype(np.int64) if whole else array
        place, value = next(
            (place, value)
            for place, value in zip(self.places, self.values, strict=True)
            if not _are_numbers(value) or np.shape(value) != np.shape(self.values[0])
        )
        what = "which is not a number" if not _are_numbers(value) else "of another length"
        raise DataError(
            f"{place} has {str(value)[:40]!r} in column {name}, {what}",
            where=str(path),
            hint=f"Name the column of the labels: {path.name}?labels=COLUMN, and leave out other "
            f"texts: {path.name}?columns=a,b; or say which are texts for a tokenizer: ?text=COLUMN",
        )


class TableSource(Source):
    """Columns by name, each with the values of all rows.

    A model whose inputs are named as columns is fed these; another gets all columns in one array.
    """

    anonymous = "input"

    def __init__(self, columns: Mapping[str, Column], labels: Array | None, where: Path) -> None:
        self.columns, self.labels, self.path, self.where = columns, labels, where, str(where)
        if not columns:
            raise DataError(
                "has no column other than the labels", where=self.where, hint="Give at least one"
            )
        self.advice = _advice(list(columns), self.path.name, labelled=labels is not None)

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())).values)

    def read(self, rows: Rows, batch: int) -> Iterator[Batch]:
        """Yield columns side by side (N, columns) float32, or by name where some are texts."""
        arrays = self._arrays
        if all(array.dtype.kind != "U" for array in arrays.values()):
            arrays = {"input": self._joined}
        yield from ArraySource(arrays, self.labels, self.where).read(rows, batch)

    @functools.cached_property
    def _arrays(self) -> dict[str, Array]:
        return {name: column.array for name, column in self.columns.items()}

    @functools.cached_property
    def _joined(self) -> Array:
        found = (column.numbers(name, self.path) for name, column in self.columns.items())
        parts = [np.asarray(array, np.float32).reshape(self.count, -1) for array in found]
        return np.concatenate(parts, axis=1)

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of names, types and values."""
        return digest_of([Batch(self._arrays, self.labels)])

    def of_inputs(self, specs: Sequence[TensorSpec]) -> Source:
        """Return the rows as these inputs take them: texts or numbers, by name or side by side.

        Raises:
            DataError: a cell has no number where one is wanted; names its line and column.
        """
        named = [spec for spec in specs if spec.name in self.columns]
        if named:
            feeds = {s.name: self._typed(self.columns[s.name], s) for s in named}
            return ArraySource(feeds, self.labels, self.where, self.identity)
        if len(specs) != 1:
            return self
        (spec,) = specs
        if spec.dtype == ir.DataType.STRING:
            side_by_side = np.array([column.texts for column in self.columns.values()]).T
            feeds = {spec.name: side_by_side}
        elif self._joined.dtype == spec.dtype.numpy():
            return self
        else:
            feeds = {spec.name: _typed(self._joined, spec, self.where)}
        return ArraySource(feeds, self.labels, self.where, self.identity)

    def _typed(self, column: Column, spec: TensorSpec) -> Array:
        texts = spec.dtype == ir.DataType.STRING
        array = np.array(column.texts) if texts else column.numbers(spec.name, self.path)
        return _typed(array, spec, self.where)


def _advice(columns: Sequence[str], file: str, *, labelled: bool) -> str:
    """Return which of the columns may be fed, and which may hold the labels, by their names."""
    few = (
        f"To feed some of the {len(columns)} columns: '{file}?columns={','.join(columns[:3])},...'"
    )
    if labelled:
        return few
    first = f"'{file}?labels={columns[0]}', by name or counted from 0"
    return f"Where one of them holds the labels: {first}. {few}"


def _typed(column: Array, spec: TensorSpec, where: str) -> Array:
    """Return a column in the type of an input, with its axis of size 1 where it has one.

    Raises:
        DataError: whole numbers are wanted, and the column has others.
    """
    array = np.asarray(column)
    if spec.dtype.numpy().kind in "iu" and not np.array_equal(array, np.round(array)):
        raise DataError(
            f"column {spec.name!r} has fractions, and the model takes {spec.type_name}",
            where=where,
        )
    if spec.shape is not None and len(spec.shape) == array.ndim + 1 and spec.shape[-1] in {1, None}:
        array = array[..., None]
    return array if spec.dtype == ir.DataType.STRING else array.astype(spec.dtype.numpy())


def read_table(path: Path, options: Mapping[str, str]) -> tuple[dict[str, Column], Array | None]:
    """Read a csv file, with a line of names or without, or a parquet file.

    Args:
        path: file.
        options: `labels`: column of the labels, by name or by number from 0; `columns`: those that
            are fed, by commas; `text`: those that hold texts, which `tokenizer` reads.

    Returns:
        Columns by name, and labels (N,) or None.

    Raises:
        DataError: it cannot be read.
        OptionError: an unknown option or column.
    """
    for key in set(options) - set(_OPTIONS):
        raise unknown("option", key, _OPTIONS, where=str(path))
    cells = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    labels = None
    if "labels" in options:
        labels = _labels(cells.pop(_column(options["labels"], list(cells), path)).values)
    wanted = options.get("text") or options.get("columns")
    if wanted:
        names = [_column(name, list(cells), path) for name in wanted.split(",")]
        cells = {name: cells[name] for name in names}
    return cells, labels


def _csv(path: Path) -> dict[str, Column]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a csv file ({error})", where=str(path)) from error
    if not lines:
        raise DataError("has no rows", where=str(path), hint="Give at least one")
    names = [str(number) for number in range(len(lines[0][1]))]
    if not any(_are_numbers(cell) for cell in lines[0][1]):
        names, lines = [cell.strip() for cell in lines[0][1]], lines[1:]
    if not lines:
        raise DataError("has no rows", where=str(path), hint="Give at least one")
    for line, row in lines:
        if len(row) != len(names):
            raise DataError(
                f"line {line} has {len(row)} columns, the first {len(names)}", where=str(path)
            )
    places = [f"line {line}" for line, _ in lines]
    columns = zip(*(row for _, row in lines), strict=True)
    return {
        name: Column([cell.strip() for cell in column], places)
        for name, column in zip(names, columns, strict=True)
    }


def _parquet(path: Path) -> dict[str, Column]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("reading parquet needs pyarrow", extra="tables") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"is not a parquet file ({reason})", where=str(path)) from error
    if not table.num_rows:
        raise DataError("has no rows", where=str(path), hint="Give at least one")
    places = [f"row {row}" for row in range(table.num_rows)]
    return {name: Column(table.column(name).to_pylist(), places) for name in table.column_names}


def _column(text: str, names: Sequence[str], path: Path) -> str:
    if text in names:
        return text
    if text.isdigit() and int(text) < len(names):
        return names[int(text)]
    raise OptionError(
        f"has no column {text!r}",
        where=str(path),
        hint=f"Its columns: {', '.join(names[:12])}, or 0 to {len(names) - 1}",
    )


def _labels(cells: Sequence[Any]) -> Array:
    """Return whole numbers where all are, else numbers, else the texts."""
    if all(_are_numbers(cell) for cell in cells):
        numbers = np.array(cells, np.float64)
        whole = bool((numbers == np.round(numbers)).all())
        return numbers.astype(np.int64) if whole else numbers
    return np.array([str(cell) for cell in cells])


def _are_numbers(cell: Any) -> bool:
    """Return whether a cell is a number, a text of one, or a list of such."""
    try:
        np.asarray(cell, np.float64)
    except (ValueError, TypeError):
        return False
    return cell is not None
