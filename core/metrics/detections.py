"""Detections out of a model's raw output: boxes, non-maximum suppression, matching."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data import Array, Floats

#: Strides of the grids of anchor-free heads.
STRIDES = (8, 16, 32)
#: Largest coordinate of boxes that are parts of the picture's sides: some reach over its edge.
RELATIVE = 1.5
#: Part of the surest boxes without an area from which they are not of a head.
WRONG = 0.1
#: Part of a picture's side within which all boxes lie that are not of a head: they are not pixels.
CORNER = 1 / 8
#: Part of the spread of boxes by which one may differ that is found again at its place.
NEAR = 0.25
#: Part of the positions without an object where the first score is that of none.
MOSTLY = 0.8


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
        boxes: corners; centre (and size); grid: centre in cells and logarithm of the size
            (YOLOX, Ge et al. 2021); or places: four numbers of no known form.
        objectness: true where the first score multiplies those of the classes (YOLOv5, YOLOX).
        side: height and width of the picture, which a grid needs.
        relative: true where boxes are parts of the picture's sides instead of pixels.
        background: true where the first score is that of no object (SSD, UltraFace).
        spread: of places, the standard deviation of each number where there is an object.
    """

    boxes: str = "centre"
    objectness: bool = False
    side: tuple[int, int] | None = None
    relative: bool = False
    background: bool = False
    spread: tuple[float, ...] = ()

    @classmethod
    def recognised(
        cls,
        boxes: Floats,
        scores: Floats,
        *,
        last_axis: bool,
        side: tuple[int, int] | None,
        listed: bool = False,
    ) -> Head:
        """Return the head that boxes (N, P, 4) and scores (N, P, S) of a float model tell of.

        Boxes may have further columns, such as an angle. Those of a list that the model made itself
        may be in another picture's pixels, as in those of the picture before it was resized.
        """
        objectness = last_axis and scores.shape[-1] > 1
        background = not objectness and has_background(scores)
        plain = cls("centre", objectness, side, background=background)
        hot = boxes[plain.sure(scores)][:, :4]
        grid = side is not None and _cells(side) == boxes.shape[1] and bool((hot[:, 2:] < 0).any())
        if grid:
            return replace(plain, boxes="grid")
        corners = (hot[:, 2:] >= hot[:, :2]).all(1).mean() > 0.99
        relative = side is not None and bool(np.abs(hot).max() <= RELATIVE)
        form = replace(plain, boxes="corners" if corners else "centre", relative=relative)
        if listed or not form.misfit(boxes, scores):
            return form
        spread = np.maximum(hot.std(0), 1e-12)
        return replace(form, boxes="places", spread=tuple(spread))

    def sure(self, scores: Floats) -> Array:
        """Return which positions (N, P) have an object, or the few surest, of scores (N, P, S)."""
        joint = scores[..., 0] if self.objectness else scores[..., int(self.background) :].max(-1)
        return np.asarray(joint >= min(0.3, float(np.quantile(joint, 0.999))))

    def classes(self, scores: int) -> int:
        """Return the number of classes where a position has so many scores."""
        return scores - int(self.objectness) - int(self.background)

    def misfit(self, boxes: Floats, scores: Floats) -> str:
        """Return why boxes (N, P, 4) and scores (N, P, S) are not of this head; "" where they are.

        Boxes that a wrong head decodes have no area, or lie far outside of the picture.
        """
        if self.boxes == "grid" and (self.side is None or _cells(self.side) != boxes.shape[1]):
            cells = "a free size" if self.side is None else f"{_cells(self.side)} cells"
            return f"it has {boxes.shape[1]} boxes, and a picture of {cells}"
        sure = self.sure(scores)
        found = np.concatenate(
            [self.decode(b[s], c[s])[0] for b, c, s in _each(boxes, scores, sure)]
        )
        valid = (found[:, 2:] > found[:, :2]).all(1)
        if self.side is not None:
            most = 2.0 * max(self.side)
            valid &= (found > -most).all(1) & (found < most).all(1)
        wrong = 1 - float(valid.mean())
        if wrong > WRONG:
            return f"{wrong:.0%} of the surest boxes have no area in the picture"
        if self.side is not None and found.max() < CORNER * min(self.side):
            return "all boxes lie in a corner of the picture"
        return ""

    def class_scores(self, scores: Floats) -> Floats:
        """Return the scores of classes (..., C) of all scores (..., S)."""
        if self.objectness:
            scores = scores[..., :1] * scores[..., 1:]
        return scores[..., int(self.background) :]

    def decode(self, boxes: Floats, scores: Floats) -> tuple[Floats, Floats]:
        """Return corners (P, 4) and class scores (P, C) of one picture."""
        scores = self.class_scores(scores)
        if self.relative and self.side is not None:
            boxes = boxes[:, :4] * np.array([*self.side[::-1], *self.side[::-1]])
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
        if self.boxes == "places":
            return "numbers of no known form"
        return f"{self.boxes}{' with objectness' if self.objectness else ''}"


def _each(boxes: Floats, scores: Floats, sure: Array) -> Iterable[tuple[Floats, Floats, Array]]:
    return zip(boxes, scores, sure, strict=True)


def has_background(scores: Floats) -> bool:
    """Return whether scores (..., S) sum to one, and the first is mostly the largest."""
    if scores.shape[-1] < 2 or not np.allclose(scores.sum(-1), 1, atol=0.02):
        return False
    return float((scores.argmax(-1) == 0).mean()) > MOSTLY


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


def nearest_of_class(truth: Floats, found: Floats) -> Array:
    """Return for each detection of lists (N, columns, detections) the nearest one found: (N, K).

    Columns are the box, the score and the class, which counts more than any distance.
    """
    indices = []
    for a, b in zip(truth, found, strict=True):
        far = np.abs(a[:4, :, None] - b[:4, None]).sum(0)
        far = far + (1 + far.max(initial=0)) * (a[-1][:, None] != b[-1][None])
        indices.append(far.argmin(1))
    return np.stack(indices)


def found_in_place(
    truth: tuple[Floats, Floats],
    found: tuple[Floats, Floats],
    spread: Sequence[float],
    least: float = 0.3,
) -> tuple[Floats, Floats]:
    """Return as `found_again` does for boxes (N, P, 4) and scores (N, P, C) of no known form.

    What has a score above the least one is found again where the same position has its class, and
    a box that differs by less than a quarter of the spread.
    """
    (boxes, scores), (boxes2, scores2) = truth, found
    sure, sure2 = scores.max(-1) > least, scores2.max(-1) > least
    moved = np.sqrt(np.square((boxes - boxes2)[..., : len(spread)] / np.array(spread)).mean(-1))
    alike = sure & sure2 & (scores.argmax(-1) == scores2.argmax(-1)) & (moved <= NEAR)
    return 2.0 * alike.sum(1), (sure.sum(1) + sure2.sum(1)).astype(np.float64)


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
