"""The kind of each output of a model: classes, scores, detections, signals.

An output is known by the values that the float model gives it, and by the operators that made it.
Where neither tells, it is judged as a signal, which is the strictest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from ..data import Array, Floats
from ..model import Model

Kind = Literal[
    "integers", "class", "classes", "sequence", "scores", "detections", "embedding", "signal"
]
#: Nodes that are searched behind an output.
DEPTH = 24
#: Operators whose results lie between 0 and 1.
_SQUASHING = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})
#: Difference of the two largest values of a row, in standard deviations of the row: that of class
#: scores of a trained network is above, that of an embedding below.
MARGIN = 0.5
#: The same of the symbols of a sequence, whose positions are sure; bins of a box's sides are below.
SURE = 2.0
#: Part of the values above 0.05 that lie in the middle where they are gains.
GRADED = 0.2
#: Part of the positions that have the most frequent class where a sequence has a blank.
BLANK = 0.3
#: Classes from which values without a sum of one can be symbols of a sequence, and lengths from
#: which the first axis can be time.
ALPHABET, STEPS = 8, 5


@dataclass(frozen=True)
class OutputKind:
    """Kind of an output.

    Attributes:
        kind: integers (each value counts), class (one decision an item), classes (one decision a
            position), sequence (decisions along time, with a blank), scores (each entry between 0
            and 1), detections (boxes beside scores), embedding (rows of length one), signal (all
            else).
        axis: axis of the classes, or of the columns of a detection.
        scores: for detections, first column of the scores.
        blank: for sequences and classes, the most frequent decision.
        time_major: true for a sequence (time, N, symbols), as recurrent networks give it.
    """

    kind: Kind
    axis: int = 1
    scores: int = 0
    blank: int = 0
    time_major: bool = False

    def __str__(self) -> str:
        return _WORDS[self.kind]


_WORDS: dict[Kind, str] = {
    "integers": "integers, equal or not",
    "class": "class scores, the first class",
    "classes": "classes of positions, all but the most frequent",
    "sequence": "a sequence of classes, edits of its symbols",
    "scores": "scores, the entries above 0.3 and 0.5",
    "detections": "boxes and scores, the detections found again",
    "embedding": "an embedding, its squared relative error",
    "signal": "a signal, its relative error",
}


def output_kinds(model: Model, found: Sequence[Mapping[str, Array]]) -> dict[str, OutputKind]:
    """Return the kind of each output of a float model.

    Args:
        model: the float model.
        found: its outputs for some batches.
    """
    values = {str(v.name): v for v in model.graph.outputs}
    return {name: kind_of(values.get(name), joined(name, found)) for name in found[0]}


def joined(name: str, found: Sequence[Mapping[str, Array]]) -> Array:
    """Return an output over all batches whose items are as large as those of the first."""
    arrays = [outputs[name] for outputs in found]
    shape = arrays[0].shape[1:]
    alike = [a for a in arrays if a.ndim and a.shape[1:] == shape]
    return np.concatenate(alike) if alike else arrays[0]


def kind_of(value: ir.Value | None, array: Array) -> OutputKind:
    """Return the kind of a tensor, by its values and by what made it where that is known."""
    if array.dtype.kind != "f":
        return OutputKind("integers")
    if not array.size or array.ndim < 2:
        return OutputKind("signal")
    array = np.where(np.isfinite(array), array, 0).astype(np.float32)
    axis = _class_axis(array)
    if axis is not None:
        return _of_classes(array, axis)
    if _are_scores(array, value):
        return OutputKind("signal" if _are_gains(array) else "scores")
    mixed = _mixed_axis(array) if _has_squashed(value) else None
    if mixed is None and _has_unit_rows(array):
        return OutputKind("embedding")
    return mixed or _of_logits(array)


def _has_unit_rows(array: Array) -> bool:
    """Return whether rows (N, features) have the length one, as embeddings that are compared do."""
    if array.ndim != 2 or array.shape[1] < 2:
        return False
    return np.allclose(np.linalg.norm(array, axis=1), 1, atol=1e-2)


def _are_scores(array: Array, value: ir.Value | None) -> bool:
    """Return whether all values lie between 0 and 1, and some are high or a sigmoid made them."""
    within = array.min() >= -1e-3 and array.max() <= 1 + 1e-3
    return bool(within and (array.max() > 0.3 or _ends_in(value)))


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


def _of_logits(array: Array) -> OutputKind:
    """Return the kind of values that sum to nothing known: decisions where one stands out."""
    if array.ndim == 2 and _has_margin(array):
        return OutputKind("class")
    if array.ndim == 3 and array.shape[2] >= ALPHABET and _has_margin(array, SURE):
        return _sequence(array.argmax(2), array) or OutputKind("signal")
    return OutputKind("signal")


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


def decisions(array: Array, kind: OutputKind) -> Array:
    """Return the decisions of each item: (N, positions)."""
    chosen: Array = array.argmax(kind.axis)
    return chosen.T if kind.time_major else chosen.reshape(len(chosen), -1)


def _has_margin(array: Array, least: float = MARGIN) -> bool:
    """Return whether the largest value along the last axis stands out, as class scores do."""
    if array.shape[-1] < 2:
        return False
    top = np.partition(array, -2, axis=-1)[..., -2:]
    spread = np.maximum(array.std(axis=-1), 1e-12)
    return bool(np.median((top[..., 1] - top[..., 0]) / spread) >= least)


def _mixed_axis(array: Array) -> OutputKind | None:
    """Return the kind of a tensor with at least four columns of boxes, then columns of scores."""
    for axis in range(array.ndim - 1, 0, -1):
        others = tuple(i for i in range(array.ndim) if i != axis)
        if array.ndim < 3 or array.shape[axis] < 5:
            continue
        low, high = array.min(axis=others), array.max(axis=others)
        is_score = (low >= -1e-3) & (high <= 1 + 1e-3)
        first = int(np.argmax(is_score))
        if first >= 4 and is_score[first:].all() and not is_score[:first].any():
            return OutputKind("detections", axis=axis, scores=first)
    return None


def _ends_in(value: ir.Value | None) -> bool:
    """Return whether a sigmoid made an output."""
    return any(node.op_type in _SQUASHING for node in _behind(value, 4))


def _has_squashed(value: ir.Value | None) -> bool:
    """Return whether a sigmoid is near an output."""
    return value is None or any(node.op_type in _SQUASHING for node in _behind(value, DEPTH))


def _behind(value: ir.Value | None, depth: int) -> Iterator[ir.Node]:
    """Yield the nodes that lead to a value, the nearest first."""
    level: list[ir.Value | None] = [value]
    seen: set[ir.Node] = set()
    for _ in range(depth):
        nodes = [v.producer() for v in level if v is not None]
        fresh = [n for n in dict.fromkeys(nodes) if n is not None and n not in seen]
        seen.update(fresh)
        yield from fresh
        level = [v for node in fresh for v in node.inputs]


def score_columns(array: Floats, kind: OutputKind) -> tuple[Floats, Floats]:
    """Return the boxes (N, positions, columns) and the scores of a tensor of detections."""
    moved = np.moveaxis(array, kind.axis, -1).reshape(len(array), -1, array.shape[kind.axis])
    return moved[..., : kind.scores], moved[..., kind.scores :]
