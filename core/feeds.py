"""Checks of data against a model's inputs: names, types, shapes, values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .data import Array, Batch
from .errors import DataError, nearest
from .model import Model, TensorSpec
from .text import shape_text

#: Most channels of a picture: a larger axis is one of its sides.
CHANNELS = 4
#: Operators that read NaN as a missing value.
_TAKE_NAN = frozenset(
    {"Imputer", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"}
)


def check_feeds(inputs: Sequence[TensorSpec], batch: Batch, where: str, advice: str = "") -> None:
    """Check a batch's names, types and shapes against a model's inputs; `where` names the data.

    `advice` says what to do about a shape that does not fit.

    Raises:
        DataError: they do not fit.
    """
    for spec in inputs:
        if spec.name not in batch.feeds:
            raise _missing(spec, batch, where)
        _check_array(spec, batch.feeds[spec.name], where, advice)
    names = [spec.name for spec in inputs]
    extra = set(batch.feeds) - set(names)
    if extra:
        raise DataError(
            f"has arrays that the model does not take: {', '.join(sorted(extra))}",
            where=where,
            hint=f"The model's inputs: {', '.join(names)}",
        )


def _missing(spec: TensorSpec, batch: Batch, where: str) -> DataError:
    near, name = nearest(spec.name, batch.feeds), spec.name
    near += "" if near.endswith("?") else "."
    named = f"{name}=array" if name.isidentifier() else f"**{{{name!r}: array}}"
    return DataError(
        f"has no array for the model's input {spec}",
        where=where,
        hint=f"{near} Arrays have the names of inputs: numpy.savez(FILE, {named})",
    )


def whole_inputs(inputs: Sequence[TensorSpec], row: Mapping[str, Array]) -> list[str]:
    """Return the names of arrays that hold a whole input for each row: (rows, 1, 80) for (1, 80).

    Args:
        inputs: inputs of the model.
        row: arrays of one row, each with an axis of size 1 in front.
    """
    unbatched = _unbatched(inputs)
    longer = [s for s in inputs if s.name in row and s.shape is not None]
    longer = [s for s in longer if row[s.name].ndim == len(s.shape or ()) + 1]
    if len(longer) == len(inputs) > 1:  # as nodes and edges of a graph, each with sizes of its own
        return [spec.name for spec in longer]

    def whole(spec: TensorSpec) -> bool:
        if not spec.shape or spec in unbatched:
            return True
        size = spec.shape[0]
        return bool(row[spec.name].shape[1] == (size if isinstance(size, int) else 1))

    return [spec.name for spec in longer if whole(spec)]


def _unbatched(inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return the inputs whose first axis has a fixed size, as of a weight, beside a free one."""
    leading = [(spec, spec.shape[0]) for spec in inputs if spec.shape]
    free = any(not isinstance(size, int) for _, size in leading)
    return [s for s, size in leading if free and isinstance(size, int) and size > 1]


def check_rows(inputs: Sequence[TensorSpec], where: str) -> None:
    """Refuse rows for inputs of which some start with the batch and others with another axis.

    Raises:
        DataError: an input has no axis for the batch.
    """
    for spec in _unbatched(inputs):
        raise DataError(
            f"holds rows, which the model's input {spec} does not: its first axis has a fixed "
            "size, others' are free",
            where=where,
            hint="Give its array one more axis, rows first; or whole batches, from Python: "
            "Dataset.of_batches",
        )


def _check_array(spec: TensorSpec, array: Array, where: str, advice: str) -> None:
    if not spec.takes_type(array.dtype):
        raise DataError(
            f"array {spec.name!r} is {array.dtype}, the model takes {spec.type_name}",
            where=where,
            hint=f"Save it in the model's type: array.astype('{spec.type_name}')",
        )
    if spec.shape is None:
        return
    fixed = [(i, d) for i, d in enumerate(spec.shape) if isinstance(d, int) and i]
    if array.ndim != len(spec.shape) or any(array.shape[i] != d for i, d in fixed):
        raise DataError(
            f"array {spec.name!r} has {_rows_text(array.shape)}, the model takes "
            f"{shape_text(spec.shape)}",
            where=where,
            hint=advice.replace("{size}", _sides(spec.shape))
            or _reshaping(spec.shape, array.shape),
        )


def reads_missing(model: Model) -> bool:
    """Return whether a model takes NaN as a missing value: trees, imputers, an input's IsNaN."""
    if _TAKE_NAN & model.operators:
        return True
    return any(node.op_type == "IsNaN" for value in model.graph.inputs for node, _ in value.uses())


def _sides(shape: Sequence[int | str | None]) -> str:
    """Return height and width of the pictures that an input takes, as --resize does."""
    sides = [d for d in shape[1:] if isinstance(d, int) and d > CHANNELS]
    if len(shape) != 4 or not sides:
        return "224"
    return str(sides[0]) if len(set(sides)) == 1 else "x".join(map(str, sides))


def _rows_text(shape: Sequence[int]) -> str:
    """Return the shape of each row, which is what the array in a file and a batch of it share."""
    if not shape:
        return "no axis"
    return f"rows of shape {shape_text(shape[1:])}" if shape[1:] else "rows of one value each"


def _reshaping(wanted: Sequence[int | str | None], shape: Sequence[int]) -> str:
    """Return what to do to an array so that it fits, where that is plain."""
    if len(shape) == len(wanted) - 1:
        return "An axis is missing: the first counts rows, as in array[None] for a single one"
    last = len(shape) - 1
    for order in ((0, last, *range(1, last)), (0, *range(2, last + 1), 1)):
        moved = [shape[axis] for axis in order] if last > 1 else []
        if len(moved) == len(wanted) and all(
            size == want or not isinstance(want, int)
            for size, want in zip(moved[1:], wanted[1:], strict=True)
        ):
            return f"The channels are elsewhere: save array.transpose{order}"
    return "The first axis is the batch; the others must match"


def check_finite(
    batch: Batch,
    where: str,
    first_row: int = 0,
    locate: Callable[[int], int] = int,
    *,
    missing: bool = False,
) -> None:
    """Refuse NaN and infinity, which would spoil ranges and metrics silently.

    `where` names the data, `first_row` counts the rows before this batch, and `locate` returns the
    position of a row in the user's data (`Dataset.row`). NaN is fine as a `missing` value.

    Raises:
        DataError: a value is NaN or infinite; names the array and the row.
    """
    for name, array in batch.feeds.items():
        if array.dtype.kind != "f":
            continue
        good = np.isfinite(array) | np.isnan(array) if missing else np.isfinite(array)
        if not good.all():
            bad = int(np.argwhere(~good)[0][0]) if array.ndim and not batch.alone else 0
            raise DataError(
                f"array {name!r} holds NaN or infinity in row {locate(first_row + bad)}",
                where=where,
                hint="Clean the data; metrics and ranges computed from it would be meaningless",
            )
