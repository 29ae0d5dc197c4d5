"""Recognition of what each output of a model is: classes, scores, detections, signals.

An output is known by the values that the float model gives it, and by the operators that made it.
Where neither tells, it is judged as a signal, which is the strictest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ..data import Array
from ..model import Model
from .kinds import OutputKind
from .producers import ends_in_squashing, has_squashed, is_hidden, is_linear

#: Types of tokens, masks and texts.
_TOKENS = frozenset({ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING})
#: Difference of the two largest values of a row, in standard deviations of the row: that of class
#: scores of a trained network is above, that of an embedding below.
MARGIN = 0.5
#: The same of the symbols of a sequence, whose positions are sure; bins of a box's sides are below.
SURE = 2.0
#: Part of the values above 0.05 that lie in the middle where they are gains.
GRADED = 0.2
#: Part of the positions that have the most frequent class where a sequence has a blank.
BLANK = 0.3
#: Likeliest class of an item, as a probability, from which numbers are class scores: of up to 16
#: columns, and of 80 and more.
LIKELY, LIKELY_OF_MANY = 0.5, 0.1
#: Likeliest class of a position from which numbers are logits, of how many classes they can be, and
#: how many positions are looked at.
CLEAR, CLASSES, POSITIONS = 0.8, 256, 100_000
#: Positions from which four axes are a mask.
PIXELS = 64
#: Correlation of the logits of two classes; that of the two parts of a motion is above.
OPPOSITE = -0.8
#: Part of the items whose first class is the same, from which the first class says nothing, and
#: the items that it takes to know.
CONSTANT, ITEMS = 0.95, 16
#: Median of the scores of detections, most of which are of no object.
NO_OBJECT = 0.1
#: Columns of items up to which they are numbers, and the items that it takes to know their spread.
NUMBERS, SPREAD = 16, 4
#: Classes from which values without a sum of one can be symbols of a sequence, and lengths from
#: which the first axis can be time.
ALPHABET, STEPS = 8, 5


def output_kinds(model: Model, found: Sequence[Mapping[str, Array]]) -> dict[str, OutputKind]:
    """Return the kind of each output of a float model.

    Args:
        model: the float model.
        found: its outputs for some batches.
    """
    values = {str(v.name): v for v in model.graph.outputs}
    text = all(spec.dtype in _TOKENS for spec in model.inputs)
    return {name: kind_of(values.get(name), joined(name, found), text=text) for name in found[0]}


def joined(
    name: str, found: Sequence[Mapping[str, Array]], dtype: type[np.float64] | None = None
) -> Array:
    """Return an output over all batches whose items are as large as the largest.

    It is of the type that it has where None is given.
    """
    arrays = [np.atleast_1d(outputs[name]) for outputs in found]
    shape = max(arrays, key=lambda array: array.size // max(1, len(array))).shape[1:]
    return np.concatenate([a for a in arrays if a.shape[1:] == shape], dtype=dtype)


def kind_of(value: ir.Value | None, array: Array, *, text: bool = False) -> OutputKind:
    """Return the kind of a tensor, by its values and by what made it where that is known.

    Args:
        value: the tensor in its graph, None where that is not known.
        array: its values for some items.
        text: the model takes tokens of texts alone.
    """
    if array.dtype.kind != "f":
        return OutputKind("integers")
    if not array.size or (array.ndim < 2 and _is_whole(value)):
        return OutputKind("signal")
    finite = np.isfinite(array)
    array = array if finite.all() else np.where(finite, array, 0)
    array = array.astype(np.float32, copy=False)
    return _of_values(value, array, text=text) if array.ndim > 1 else _of_numbers(array)


def _of_values(value: ir.Value | None, array: Array, *, text: bool) -> OutputKind:
    """Return the kind of finite values of two axes and more."""
    axis = _class_axis(array)
    if axis is not None:
        return _of_classes(array, axis)
    if _are_scores(array, value):
        return OutputKind("signal" if _are_gains(array) else "scores")
    mixed = _mixed_axis(array) if has_squashed(value) else None
    if mixed is None and _has_unit_rows(array):
        return OutputKind("embedding")
    logits = None if is_hidden(value) else _of_logits(array)
    return mixed or logits or _of_positions(array, text=text) or _of_numbers(array)


def _has_unit_rows(array: Array) -> bool:
    """Return whether rows (N, features) have the length one, as embeddings that are compared do."""
    if array.ndim != 2 or array.shape[1] < 2:
        return False
    return np.allclose(np.linalg.norm(array, axis=1), 1, atol=1e-2)


def _are_scores(array: Array, value: ir.Value | None) -> bool:
    """Return whether all values lie between 0 and 1, and some are high or a sigmoid made them."""
    within = array.min() >= -1e-3 and array.max() <= 1 + 1e-3
    if not within or is_linear(value):
        return False
    return bool(array.max() > 0.3 or ends_in_squashing(value))


def _are_gains(array: Array) -> bool:
    """Return whether values of frames (N, frames, bands) are factors of a signal, not decisions.

    Of scores few are undecided: 2% of the notes of a transcriber, 38% of the gains of a mask that
    suppresses noise. A mask of a picture has as many, as its edges are soft.
    """
    above = array > 0.05
    undecided = (array > 0.2) & (array < 0.8)
    return array.ndim == 3 and bool(undecided.sum() > GRADED * above.sum())


def _class_axis(array: Array) -> int | None:
    """Return the axis along which probabilities, or their logarithms, sum to one."""
    for values in (array, np.exp(array)) if array.size and array.max() <= 1e-3 else (array,):
        if values.size and values.min() >= -1e-4 and values.max() <= 1 + 1e-3:
            for axis in range(array.ndim - 1, 0, -1):
                if array.shape[axis] > 1 and np.allclose(values.sum(axis), 1, atol=0.02):
                    return axis
    return None


def _of_classes(array: Array, axis: int) -> OutputKind:
    chosen = array.argmax(axis)
    if array.ndim == 3 and axis == 2 and array.shape[2] > 2 and (read := _sequence(chosen, array)):
        return read
    if chosen.ndim == 1 or chosen[0].size == 1:
        return OutputKind("class", axis=axis)
    return OutputKind("classes", axis=axis, blank=_most_frequent(chosen)[0])


def _of_logits(array: Array) -> OutputKind | None:
    """Return the kind of values that sum to nothing known: decisions where one stands out."""
    if array.ndim == 2 and _has_margin(array) and _decides(array):
        return OutputKind("class")
    if array.ndim == 3 and array.shape[2] >= ALPHABET and _has_margin(array, SURE):
        return _sequence(array.argmax(2), array)
    return None


def _of_positions(array: Array, *, text: bool) -> OutputKind | None:
    """Return the kind of logits of a mask (N, classes, H, W) or (N, H, W, classes), or of tokens.

    Those of tokens are (N, tokens, classes); without a text before them they may be bins of the
    sides of boxes. Pictures and fields of motion have no likely and no opposite channels.
    """
    axis = 2 if text and array.ndim == 3 else None
    if array.ndim == 4:
        axis = 1 if array.shape[1] <= array.shape[3] else 3
    if axis is None or not 2 <= array.shape[axis] <= CLASSES:
        return None
    if array.ndim == 4 and array[0].size < array.shape[axis] * PIXELS:
        return None
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    rows = rows[:: max(1, len(rows) // POSITIONS)]
    below = float((rows < 0).mean())
    blank, share = _most_frequent(rows.argmax(1))
    opposite = rows.shape[1] > 2 or np.corrcoef(rows.T)[0, 1] < OPPOSITE
    sure = np.median(_likeliest(rows)) >= CLEAR
    if sure and opposite and share < CONSTANT and 1 - CONSTANT < below < CONSTANT:
        return OutputKind("classes", axis=axis, blank=blank)
    return None


def _likeliest(rows: Array) -> Array:
    """Return the largest of the probabilities of logits (N, classes): (N,)."""
    largest = rows.max(axis=1)
    return np.asarray(np.exp(largest - np.logaddexp.reduce(rows, axis=1)))


def _is_whole(value: ir.Value | None) -> bool:
    """Return whether an output of one axis has a fixed length, so that it is not one of items."""
    shape = value.shape if value is not None else None
    return shape is not None and len(shape) == 1 and shape[0] != 1 and isinstance(shape[0], int)


def _of_numbers(array: Array) -> OutputKind:
    """Return the kind of a few numbers of each item, as marks, angles and landmarks are."""
    columns = array.reshape(len(array), -1)
    if array.ndim > 2 or columns.shape[1] > NUMBERS or len(columns) < SPREAD:
        return OutputKind("signal")
    columns = columns.astype(np.float64)
    centre, spread = columns.mean(0), columns.std(0)
    # What does not change from item to item has only its size to be compared with.
    still = spread <= 1e-3 * np.abs(centre)
    spread = np.where(still, np.maximum(np.abs(centre), 1e-12), spread)
    return OutputKind("numbers", centre=tuple(np.where(still, 0, centre)), spread=tuple(spread))


def _decides(array: Array) -> bool:
    """Return whether the first column of items (N, columns) is likely, and not always the same.

    The four sides of a box or the three marks of a recording have a largest one too.
    """
    if np.median(_likeliest(array)) < min(LIKELY, max(LIKELY_OF_MANY, 8 / array.shape[1])):
        return False
    return len(array) < ITEMS or _most_frequent(array.argmax(1))[1] < CONSTANT


def _sequence(chosen: Array, array: Array) -> OutputKind | None:
    """Return the kind of decisions along time, where one of them, the first or last, is a blank."""
    blank, share = _most_frequent(chosen)
    if blank not in {0, array.shape[2] - 1} or share < BLANK:
        return None
    if chosen.shape[1] > 1:
        return OutputKind("sequence", axis=2, blank=blank)
    if chosen.shape[0] >= STEPS and array.shape[2] >= ALPHABET:
        return OutputKind("sequence", axis=2, blank=blank, time_major=True)
    return None


def _most_frequent(chosen: Array) -> tuple[int, float]:
    """Return the most frequent decision, and its share."""
    names, counts = np.unique(chosen, return_counts=True)
    return int(names[counts.argmax()]), float(counts.max() / chosen.size)


def _has_margin(array: Array, least: float = MARGIN) -> bool:
    """Return whether the largest value along the last axis stands out, as class scores do."""
    if array.shape[-1] < 2:
        return False
    top = np.partition(array, -2, axis=-1)[..., -2:].copy()  # the rest is as large as the array
    spread = np.maximum(array.std(axis=-1), 1e-12)
    return bool(np.median((top[..., 1] - top[..., 0]) / spread) >= least)


def _mixed_axis(array: Array) -> OutputKind | None:
    """Return the kind of a tensor with at least four columns of boxes, then columns of scores.

    Behind them may stand an angle, the number of the class, landmarks or the coefficients of a
    mask, as YOLO's forms for turned boxes, poses and masks have them, and those without a search
    for the best.
    """
    for axis in range(array.ndim - 1, 0, -1):
        others = tuple(i for i in range(array.ndim) if i != axis)
        if array.ndim < 3 or array.shape[axis] < 5:
            continue
        low, high = array.min(axis=others), array.max(axis=others)
        is_score = (low >= -1e-3) & (high <= 1 + 1e-3)
        first = int(np.argmax(is_score))
        if first < 4 or is_score[:first].any():
            continue
        columns = np.moveaxis(array, axis, -1)
        width = columns.shape[-1]
        labels = _labels(columns[..., -1]) if (first, width) == (4, 6) else 0
        if labels:
            return OutputKind("detections", axis=axis, scores=4, end=5, labels=labels)
        if is_score[first:].all():
            return OutputKind("detections", axis=axis, scores=first)
        end = first + int(np.argmin(is_score[first:]))
        if first == 4 and np.median(columns[..., first:end]) < NO_OBJECT:
            return OutputKind("detections", axis=axis, scores=first, end=end)
    return None


def _labels(numbers: Array) -> int:
    """Return how many classes a column of their numbers has; 0 where it is none."""
    whole = numbers.min() >= 0 and np.array_equal(numbers, np.round(numbers))
    return int(numbers.max()) + 1 if whole else 0
