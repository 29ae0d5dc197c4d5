"""Detections out of a model's raw output: boxes, non-maximum suppression, matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data import Array, Floats

#: Strides of the grids of anchor-free heads.
STRIDES = (8, 16, 32)


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one picture.

    Attributes:
        boxes: (M, 4) left, top, right, bottom.
        classes: (M,) class numbers.
        scores: (M,) descending.
    """

    boxes: Floats
    classes: Array
    scores: Floats


@dataclass(frozen=True)
class Head:
    """Form of boxes and scores in a model's output.

    Attributes:
        boxes: corners; centre (and size); or grid: centre in cells and logarithm of the size
            (YOLOX, Ge et al. 2021).
        objectness: true where the first score multiplies those of the classes (YOLOv5, YOLOX).
        side: height and width of the picture, which a grid needs.
    """

    boxes: str = "centre"
    objectness: bool = False
    side: tuple[int, int] | None = None

    @classmethod
    def recognised(
        cls, boxes: Floats, scores: Floats, *, last_axis: bool, side: tuple[int, int] | None
    ) -> Head:
        """Return the head that boxes (N, P, 4) and scores (N, P, S) of a float model tell of."""
        objectness = last_axis and scores.shape[-1] > 1
        joint = scores[..., 0] if objectness else scores.max(-1)
        hot = boxes[joint >= min(0.3, float(np.quantile(joint, 0.999)))]
        grid = side is not None and _cells(side) == boxes.shape[1] and bool((hot[:, 2:] < 0).any())
        if grid:
            return cls("grid", objectness, side)
        corners = (hot[:, 2:] >= hot[:, :2]).all(1).mean() > 0.99
        return cls("corners" if corners else "centre", objectness, side)

    def decode(self, boxes: Floats, scores: Floats) -> tuple[Floats, Floats]:
        """Return corners (P, 4) and class scores (P, C) of one picture."""
        if self.objectness:
            scores = scores[:, :1] * scores[:, 1:]
        if self.boxes == "corners":
            return boxes[:, :4], scores
        middle, size = boxes[:, :2], boxes[:, 2:4]
        if self.boxes == "grid":
            assert self.side is not None
            cells, step = _grid(self.side)
            middle = (middle + cells) * step
            size = np.exp(np.clip(size, -20, 20)) * step
        return np.concatenate([middle - size / 2, middle + size / 2], 1), scores

    def __str__(self) -> str:
        return f"{self.boxes}{' with objectness' if self.objectness else ''}"


def _cells(side: tuple[int, int]) -> int:
    return sum((side[0] // s) * (side[1] // s) for s in STRIDES)


def _grid(side: tuple[int, int]) -> tuple[Floats, Floats]:
    cells, steps = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: side[0] // stride, : side[1] // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], 1))
        steps.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float64), np.concatenate(steps).astype(np.float64)


def detect(
    boxes: Floats, scores: Floats, *, confidence: float = 0.3, overlap: float = 0.5
) -> Detections:
    """Keep the best of boxes (P, 4) of one class that overlap; scores are (P, C).

    Non-maximum suppression by class, on the best class of each box.
    """
    best = scores.max(1)
    keep = np.flatnonzero(best > confidence)
    keep = keep[np.argsort(-best[keep], kind="stable")]
    boxes, kinds, values = boxes[keep], scores[keep].argmax(1), best[keep]
    left: list[int] = []
    order = np.arange(len(keep))
    while len(order):
        first, rest = order[0], order[1:]
        left.append(int(first))
        twin = (iou(boxes[first], boxes[rest]) > overlap) & (kinds[rest] == kinds[first])
        order = rest[~twin]
    return Detections(boxes[left], kinds[left], values[left])


def iou(box: Floats, boxes: Floats) -> Floats:
    """Return intersection over union of a box (4,) with boxes (M, 4)."""
    corner = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    inter = np.prod(np.clip(corner[1] - corner[0], 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(inter / np.maximum(area - inter, 1e-12))


def matched(truth: Detections, found: Detections, overlap: float = 0.5) -> int:
    """Return how many detections, the best first, meet a free one of their class in the truth."""
    free = np.ones(len(truth.boxes), bool)
    hits = 0
    for box, kind in zip(found.boxes, found.classes, strict=True):
        if not free.any():
            break
        overlaps = np.where(free & (truth.classes == kind), iou(box, truth.boxes), 0)
        best = int(overlaps.argmax())
        if overlaps[best] >= overlap:
            free[best] = False
            hits += 1
    return hits


def found_again(truth: Sequence[Detections], found: Sequence[Detections]) -> tuple[Floats, Floats]:
    """Return for each picture twice the detections found again, and all of both.

    Their sums' ratio is F1 of the detections.
    """
    pairs = [
        (2.0 * matched(a, b), float(len(a.boxes) + len(b.boxes)))
        for a, b in zip(truth, found, strict=True)
    ]
    table = np.array(pairs, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]
