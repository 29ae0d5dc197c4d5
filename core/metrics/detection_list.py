"""Detectors that choose their detections themselves: lists of boxes, scores and classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data import Array, Floats
from .kinds import OutputKind

#: Numbers of a box.
BOX = 4
#: First column of the box, that of the score and that of the class, by the number of columns.
FORMS = {
    6: ((2, 1, 0), (0, 4, 5), (0, 5, 4)),  # PaddleDetection; torchvision's order; and turned
    7: ((1, 6, 5), (3, 2, 1)),  # YOLOv7 with its last layers; SSD's DetectionOutput
}
#: Fewest rows by which a form is known.
LEAST = 4


@dataclass(frozen=True)
class DetectionList:
    """Outputs of boxes, of their scores and of the numbers of their classes, in no lasting order.

    Torchvision's detectors, RT-DETR and YOLO with its last layers have them, TensorFlow's with the
    number of detections beside them.

    Attributes:
        boxes: (N, detections, 4); or (detections, 4) of one picture, as many as there are.
        scores: (N, detections) or (detections,).
        labels: as the scores; "" where there is one class.
        counts: outputs of one number a picture, which the lists tell as well.
    """

    boxes: str
    scores: str
    labels: str
    counts: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, found: Sequence[Mapping[str, Array]], *, one_row: bool
    ) -> tuple[DetectionList, OutputKind] | None:
        """Return the list that outputs of some batches are, and its kind; None where they are none.

        Args:
            found: outputs of the float model for some batches.
            one_row: the model takes one picture at a time.
        """
        first = found[0]
        four = {n: a.ndim for n, a in first.items() if a.ndim in {2, 3} and a.shape[-1] == BOX}
        boxes = [n for n, axes in four.items() if axes == max(four.values())]
        if len(boxes) != 1 or first[boxes[0]].dtype.kind != "f":
            return None
        (name,) = boxes
        if first[name].ndim == 2 and not _is_of_one_picture(name, found, one_row=one_row):
            return None
        beside = [n for n in first if n != name and all(_is_beside(o[n], o[name]) for o in found)]
        labels = [n for n in beside if all(_are_whole(o[n]) for o in found)]
        scores = [n for n in beside if n not in labels and all(_are_scores(o[n]) for o in found)]
        if len(scores) != 1 or len(labels) > 1:
            return None
        if not all(_are_boxes(o[name], o[scores[0]]) for o in found):
            return None
        rows = len(first[name]) if first[name].ndim == 3 else 1
        counts = _counts(first, {name, *beside}, rows)
        made = cls(name, scores[0], labels[0] if labels else "", counts)
        classes = [int(o[made.labels].max(initial=0)) + 1 for o in found] if labels else [1]
        return made, _kind(max(classes))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all its outputs."""
        named = (self.boxes, self.scores, self.labels, *self.counts)
        return tuple(name for name in named if name)

    def joined(self, outputs: Mapping[str, Array]) -> Floats:
        """Return boxes, scores and classes: (N, detections, columns)."""
        boxes = finite(outputs[self.boxes])
        boxes = boxes if boxes.ndim == 3 else boxes[None]
        shape = (*boxes.shape[:2], 1)
        scores = finite(outputs[self.scores]).reshape(shape)
        labels = finite(outputs[self.labels]).reshape(shape) if self.labels else np.zeros(shape)
        return np.concatenate([boxes, scores, labels], axis=-1)


@dataclass(frozen=True)
class DetectionRows:
    """An output of a row for each detection, in no lasting order.

    Attributes:
        output: (detections, columns) of one picture, or (N, detections, columns).
        first: first of the four columns of the box.
        score: column of the score.
        label: column of the number of the class.
        counts: outputs of one number a picture, which the rows tell as well.
    """

    output: str
    first: int
    score: int
    label: int
    counts: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, found: Sequence[Mapping[str, Array]], *, one_row: bool
    ) -> tuple[DetectionRows, OutputKind] | None:
        """Return the rows that an output of some batches is, and its kind; None where none is.

        Args:
            found: outputs of the float model for some batches.
            one_row: the model takes one picture at a time.
        """
        for name, array in found[0].items():
            flat, width = array.ndim == 2, array.shape[-1] if array.ndim else 0
            if array.ndim not in {2, 3, 4} or array.dtype.kind != "f" or width not in FORMS:
                continue
            if flat and not _is_of_one_picture(name, found, one_row=one_row):
                continue
            rows = np.concatenate([o[name].reshape(-1, width) for o in found])
            forms = [form for form in FORMS[width] if _fits(rows, *form)]
            if forms and len(rows) >= LEAST:
                counts = _counts(found[0], {name}, 1 if flat else len(array))
                labels = int(rows[:, forms[0][2]].max()) + 1
                return cls(name, *forms[0], counts), _kind(labels)
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all its outputs."""
        return (self.output, *self.counts)

    def joined(self, outputs: Mapping[str, Array]) -> Floats:
        """Return boxes, scores and classes: (N, detections, columns)."""
        rows = finite(outputs[self.output])
        rows = rows[None] if rows.ndim == 2 else rows.reshape(len(rows), -1, rows.shape[-1])
        box = range(self.first, self.first + BOX)
        return rows[..., [*box, self.score, self.label]]


def _kind(labels: int) -> OutputKind:
    """Return the kind of joined outputs (N, columns, detections) of so many classes."""
    return OutputKind("detections", axis=1, scores=BOX, end=BOX + 1, labels=labels)


def _is_of_one_picture(name: str, found: Sequence[Mapping[str, Array]], *, one_row: bool) -> bool:
    """Return whether the first axis counts detections; else it counts rows."""
    lengths = {len(outputs[name]) for outputs in found}
    return len(lengths) > 1 or (one_row and max(lengths) > 1)


def _fits(rows: Array, first: int, score: int, label: int) -> bool:
    """Return whether rows (M, columns) have corners, a score and a class in these columns."""
    box, scores, labels = rows[:, first : first + BOX], rows[:, score], rows[:, label]
    if not (_are_whole(labels) and labels.min(initial=0) >= -1 and _are_scores(scores)):
        return False
    known = labels >= 0
    return bool((box[known, 2:] >= box[known, :2]).all() and not _are_whole(scores))


def _counts(outputs: Mapping[str, Array], names: Collection[str], rows: int) -> tuple[str, ...]:
    """Return the outputs but these that are a whole number for each row."""
    rest = [n for n in outputs if n not in names]
    return tuple(n for n in rest if outputs[n].size == rows and _are_whole(outputs[n]))


def finite(array: Array) -> Floats:
    """Return values in double precision, 0 in place of those that are not finite."""
    return np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)


def _is_beside(array: Array, boxes: Array) -> bool:
    """Return whether an output has one number for each box."""
    return array.dtype.kind in "fiu" and array.shape in {boxes.shape[:-1], (*boxes.shape[:-1], 1)}


def _are_boxes(boxes: Array, scores: Array) -> bool:
    """Return whether boxes with a score are corners, or have a size in their last two columns."""
    rows = boxes.reshape(-1, BOX)[scores.reshape(-1) > 0]
    ends, sizes = rows[:, 2:] >= rows[:, :2], rows[:, 2:] >= 0
    return bool(np.isfinite(rows).all() and (ends.all() or sizes.all()))


def _are_whole(array: Array) -> bool:
    whole = array.dtype.kind in "iu" or np.array_equal(array, np.round(array))
    return bool(whole and np.isfinite(array).all())


def _are_scores(array: Array) -> bool:
    return bool(array.min(initial=0) >= -1e-3 and array.max(initial=0) <= 1 + 1e-3)
