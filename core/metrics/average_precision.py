"""Average precision of detections, as COCO computes it (Lin et al. 2014), and detections kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data import Array, Floats
from ..errors import DataError, OptionError
from ..model import Model
from ..text import shape_text
from .detections import Detections, Head, detect, found_again, found_in_place, iou
from .kinds import OutputKind, score_columns
from .metric import Metric, Pooled, first_output, ratio_items
from .recognition import joined, output_kinds
from .split_detector import SplitDetector

#: Overlaps of a match, whose average precisions are averaged.
OVERLAPS = np.linspace(0.5, 0.95, 10)
#: Recalls at which the precision is read.
RECALLS = np.linspace(0, 1, 101)
#: Detections of a class in a picture that count.
MOST = 100
#: Score above which a detection counts as found.
CONFIDENCE = 0.3
#: Least score of a detection that counts in average precision.
LEAST_SCORE = 0.001
_NAME_THE_HEAD = "Name it with head=, or judge it with a metric of your own, module:callable"
HEADS = ("yolox", "yolov5", "yolov8", "ssd", "decoded")


@dataclass(frozen=True, eq=False)
class _Match:
    """Detections of a class in a picture: scores (M,), hits (overlaps, M), objects there were."""

    scores: Floats
    hits: Array
    objects: int


def matches(truth: Detections, found: Detections) -> dict[int, _Match]:
    """Return by class which detections of a picture meet an object, at each overlap."""
    return {
        int(kind): _match(_of_class(truth, kind), _of_class(found, kind))
        for kind in np.union1d(truth.classes, found.classes)
    }


def _of_class(found: Detections, kind: int) -> Detections:
    chosen = np.flatnonzero(found.classes == kind)
    order = chosen[np.argsort(-found.scores[chosen], kind="stable")][:MOST]
    return Detections(found.boxes[order], found.classes[order], found.scores[order])


def _match(truth: Detections, found: Detections) -> _Match:
    """Let each detection, the best first, take the free object that it overlaps most."""
    hits = np.zeros((len(OVERLAPS), len(found.boxes)), bool)
    table = np.array([iou(box, truth.boxes) for box in found.boxes]).reshape(
        len(found.boxes), len(truth.boxes)
    )
    for row, overlap in enumerate(OVERLAPS):
        free = np.ones(len(truth.boxes), bool)
        for column, overlaps in enumerate(table):
            open_ = np.where(free, overlaps, -1)
            # The last of equals, as COCO's own loop takes it.
            best = len(open_) - 1 - int(open_[::-1].argmax()) if len(open_) else -1
            if best >= 0 and open_[best] >= min(overlap, 1 - 1e-10):
                free[best] = False
                hits[row, column] = True
    return _Match(found.scores, hits, len(truth.boxes))


def average_precision(pictures: Sequence[Mapping[int, _Match]], overlap: float | None) -> float:
    """Return the mean over classes that have objects, at one overlap or over all ten."""
    rows = slice(None) if overlap is None else int(np.argmin(np.abs(OVERLAPS - overlap)))
    values = []
    for kind in sorted({k for found in pictures for k in found}):
        parts = [found[kind] for found in pictures if kind in found]
        objects = sum(part.objects for part in parts)
        if objects:
            scores = np.concatenate([part.scores for part in parts])
            order = np.argsort(-scores, kind="stable")
            hits = np.concatenate([part.hits for part in parts], axis=1)[:, order]
            values.append(np.array([_of_overlap(row, objects) for row in hits])[rows].mean())
    if not values:
        raise DataError("no picture has an object", where="labels")
    return float(np.mean(values))


def _of_overlap(hits: Array, objects: int) -> float:
    recall = np.cumsum(hits) / objects
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(places, len(envelope))].mean())


@dataclass(frozen=True)
class DetectionReader:
    """Reader of detections out of a model's outputs.

    Attributes:
        kind: axis of the columns, and where the scores begin.
        head: form of the boxes.
        name: output that holds them.
        split: outputs that are joined to that one, None where a model has a single one.
    """

    kind: OutputKind
    head: Head
    name: str
    split: SplitDetector | None = None

    @classmethod
    def of(
        cls, model: Model, found: Sequence[Mapping[str, Array]], head: str = ""
    ) -> DetectionReader:
        """Return the reader of a float model whose outputs for some batches these are.

        Raises:
            OptionError: no output is known to be detections; tells what they are.
        """
        if head and head not in HEADS:
            raise OptionError(f"must be one of {', '.join(HEADS)}", where=f"head={head}")
        kinds = output_kinds(model, found)
        for name, kind in kinds.items():
            if kind.kind == "detections":
                return cls.of_output(model, found, name, kind, head)
        split = SplitDetector.of(model, kinds, found)
        if split is not None:
            merged = [split.merged(outputs) for outputs in found]
            one = cls.of_output(model, merged, split.name, split.kind, head)
            # Scores of any object are part of those of the classes.
            return replace(one, split=split, head=replace(one.head, objectness=False))
        seen = ", ".join(f"{name} {shape_text(array.shape)}" for name, array in found[0].items())
        raise OptionError(
            f"has no output of boxes beside scores that could be read; its outputs are {seen}",
            where=model.name,
            hint="Judge it with a metric of your own, module:callable",
        )

    @classmethod
    def of_output(
        cls,
        model: Model,
        found: Sequence[Mapping[str, Array]],
        name: str,
        kind: OutputKind,
        head: str = "",
    ) -> DetectionReader:
        """Return the reader of one output that has boxes beside scores."""
        array = joined(name, found, np.float64)
        boxes, scores = score_columns(array, kind)
        side = picture_side(model)
        last = kind.axis == array.ndim - 1 and not kind.labels
        form = Head.recognised(boxes, scores, last_axis=last, side=side, listed=bool(kind.labels))
        return cls(kind, _named(head, form, boxes, scores), name)

    def classes(self, outputs: Mapping[str, Array]) -> int:
        """Return the number of classes that the outputs have scores of."""
        _, scores = self._columns(outputs)
        return self.head.classes(self.kind.labels or scores.shape[-1])

    def read(
        self, outputs: Mapping[str, Array], *, confidence: float, overlap: float = 0.5
    ) -> list[Detections]:
        """Return the detections of each picture, after non-maximum suppression by class."""
        decoded = (self.head.decode(b, s) for b, s in zip(*self._columns(outputs), strict=True))
        return [detect(b, s, confidence=confidence, overlap=overlap) for b, s in decoded]

    def found_again(
        self, truth: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> tuple[Floats, Floats]:
        """Return for each picture twice the detections found again, and all of both."""
        if self.head.boxes != "places":
            pair = (self.read(found, confidence=CONFIDENCE) for found in (truth, outputs))
            return found_again(*pair)
        columns = (self._columns(found) for found in (truth, outputs))
        a, b = ((boxes, self.head.class_scores(scores)) for boxes, scores in columns)
        return found_in_place(a, b, self.head.spread, CONFIDENCE)

    def _columns(self, outputs: Mapping[str, Array]) -> tuple[Floats, Floats]:
        """Return boxes (N, P, 4 and more) and scores (N, P, S)."""
        known = outputs if self.split is None else self.split.merged(outputs)
        return score_columns(known[self.name].astype(np.float64), self.kind)


def picture_side(model: Model) -> tuple[int, int] | None:
    """Return height and width of the picture that a model takes, None where they are free."""
    for spec in model.inputs:
        if spec.shape is not None and len(spec.shape) == 4:
            height, width = spec.shape[2:] if spec.shape[1] in {1, 3, 4} else spec.shape[1:3]
            if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
                return height, width
    return None


def _named(name: str, found: Head, boxes: Floats, scores: Floats) -> Head:
    """Return the head of that name, the recognised one where none is named.

    Raises:
        OptionError: the boxes are not of that head.
    """
    if not name:
        return found
    known = {
        "yolox": replace(found, boxes="grid", objectness=True, relative=False),
        "yolov5": replace(found, boxes="centre", objectness=True),
        "yolov8": replace(found, boxes="centre", objectness=False),
        "ssd": replace(found, boxes="corners", objectness=False),
        "decoded": replace(found, boxes="corners", objectness=False),
    }
    why = known[name].misfit(boxes, scores)
    if found.boxes == "grid" and known[name].boxes != "grid":
        why = f"it has a box for each of {boxes.shape[1]} cells, with logarithms of sizes"
    if why:
        raise OptionError(
            f"does not fit the output: {why}; it looks like {found}",
            where=f"head={name}",
            hint=f"Leave it out, or give another of {', '.join(HEADS)}",
        )
    return known[name]


def _labelled(labels: Any, picture: int, classes: int) -> Detections:
    """Return the objects of a picture from its labels (M, 5): class, left, top, right, bottom.

    Raises:
        DataError: an object is of a class that the model does not have.
    """
    rows = np.asarray(labels[picture], np.float64).reshape(-1, 5)
    rows = rows[rows[:, 0] >= 0]  # padding
    if len(rows) and rows[:, 0].max() >= classes:
        raise DataError(
            f"hold class {rows[:, 0].max():.0f}, the model has classes 0 to {classes - 1}",
            where="labels",
            hint="Classes are numbered from 0; check that data and model belong together",
        )
    return Detections(rows[:, 1:], rows[:, 0].astype(np.int64), np.ones(len(rows)))


def _precision_metric(name: str, overlap: float | None) -> Metric:
    def configure(options: Mapping[str, str]) -> Metric:
        head = options.get("head", "")
        return replace(
            plain, fit=lambda model, found: fitted(DetectionReader.of(model, found, head))
        )

    def fitted(reader: DetectionReader) -> Metric:
        if reader.head.boxes == "places":
            raise OptionError(
                "has boxes of a form that is not known", where=reader.name, hint=_NAME_THE_HEAD
            )

        def score(outputs: Mapping[str, Array], labels: Any) -> list[dict[int, _Match]]:
            pictures = reader.read(outputs, confidence=LEAST_SCORE, overlap=0.65)
            count = reader.classes(outputs)
            return [matches(_labelled(labels, i, count), p) for i, p in enumerate(pictures)]

        return replace(plain, score=score, fit=None)

    def finish(batches: Sequence[list[dict[int, _Match]]]) -> Pooled:
        pictures = [picture for batch in batches for picture in batch]
        return Pooled(average_precision(pictures, overlap), np.zeros(0))

    plain = Metric(
        name,
        _unfitted,
        itemwise=False,
        needs="labels: objects of each picture, rows (class, left, top, right, bottom) in pixels "
        "of the input, -1 for padding; head=NAME where the boxes are not recognised",
        finish=finish,
        fit=lambda model, found: fitted(DetectionReader.of(model, found)),
        configure=configure,
    )
    return plain


def _again_metric() -> Metric:
    def configure(options: Mapping[str, str]) -> Metric:
        head = options.get("head", "")
        return replace(
            plain, fit=lambda model, found: fitted(DetectionReader.of(model, found, head))
        )

    def fitted(reader: DetectionReader) -> Metric:
        def score(outputs: Mapping[str, Array], reference: Mapping[str, Array]) -> Floats:
            return np.stack(reader.found_again(reference, outputs), 1)

        return replace(plain, score=score, fit=None)

    def finish(tables: Sequence[Floats]) -> Pooled:
        table = np.concatenate(tables)
        items = ratio_items(table[:, 0], table[:, 1])
        return Pooled(float(items.mean()), items)

    plain = Metric(
        "found_again",
        _unfitted,
        itemwise=True,
        wants="reference",
        needs="the float model, a detector: F1 of its detections above 0.3 found again",
        finish=finish,
        fit=lambda model, found: fitted(DetectionReader.of(model, found)),
        configure=configure,
    )
    return plain


def _unfitted(outputs: Mapping[str, Array], _truth: Any) -> Any:
    raise AssertionError(f"fitted to a model before {len(first_output(outputs))} items are scored")


METRICS = (
    _precision_metric("map", None),
    _precision_metric("map50", 0.5),
    _again_metric(),
)
