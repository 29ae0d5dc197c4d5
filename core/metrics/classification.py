"""Metrics of class scores: the first output of (N, classes, ...) unless one is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data import Array, Floats
from ..errors import DataError
from ..text import shape_text
from .metric import Metric, Score, first_output


def _top(k: int) -> Score:
    def score(outputs: Mapping[str, Array], labels: Array) -> Array:
        logits = first_output(outputs)  # (N, classes, ...)
        if logits.dtype.kind in "iu" and logits.shape == labels.shape and k == 1:
            return _item_mean(logits == labels)  # the model chose the class itself
        check_labels(labels, logits)
        if k == 1:
            return _item_mean(logits.argmax(1) == labels)
        best = np.argpartition(-logits, min(k, logits.shape[1]) - 1, axis=1)[:, :k]
        return _item_mean((best == labels[:, None]).any(1))

    return score


def _item_mean(hits: Array) -> Array:
    return np.asarray(hits.reshape(len(hits), -1).mean(1, dtype=np.float64))


def check_labels(labels: Array, logits: Array) -> None:
    """Check that labels are class numbers of the outputs.

    Raises:
        DataError: they are not integers, do not fit the shape, or are out of range.
    """
    classes = logits.shape[1] if logits.ndim > 1 else 0
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"labels are {labels.dtype}, a classification metric needs integers",
            where="labels",
            hint="Name another metric with --metric",
        )
    if labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise DataError(
            f"labels of shape {shape_text(labels.shape)} do not fit outputs "
            f"{shape_text(logits.shape)}",
            where="labels",
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(
            f"labels range from {labels.min()} to {labels.max()}, the model has {classes} classes",
            where="labels",
            hint="Labels start at 0; check that data and model belong together",
        )


def _agreement(outputs: Mapping[str, Array], reference: Mapping[str, Array]) -> Array:
    mine, other = first_output(outputs), first_output(reference)
    if mine.ndim == 1 or mine.dtype.kind in "iub":
        return _item_mean(mine == other)
    return _item_mean(mine.argmax(1) == other.argmax(1))


def _f1(outputs: Mapping[str, Array], labels: Array) -> float:
    """Return F1 of each class, averaged over the classes that occur; (N, C) labels are flags."""
    scores = first_output(outputs)
    if labels.ndim == scores.ndim == 2 and labels.shape == scores.shape:
        found, wanted = scores > 0.5, labels > 0.5
    else:
        check_labels(labels, scores)
        kinds = np.arange(scores.shape[1])
        shape = (-1, scores.shape[1])
        found = (scores.argmax(1)[..., None] == kinds).reshape(shape)
        wanted = (labels[..., None] == kinds).reshape(shape)
    hits = (found & wanted).sum(0)
    both = found.sum(0) + wanted.sum(0)
    return float(np.mean(2 * hits[both > 0] / both[both > 0]))


def _auc(outputs: Mapping[str, Array], labels: Array) -> float:
    """Return the area under the ROC curve; of several classes each against the rest, averaged."""
    scores = first_output(outputs)
    scores = scores.reshape(len(scores), -1).astype(np.float64)
    if scores.shape[1] == 1:
        return area_under_roc(scores[:, 0], labels.reshape(-1) > 0)
    if scores.shape[1] == 2:
        return area_under_roc(scores[:, 1], labels.reshape(-1) == 1)
    check_labels(labels, scores)
    present = np.unique(labels)
    return float(np.mean([area_under_roc(scores[:, k], labels == k) for k in present]))


def area_under_roc(scores: Floats, positive: Any) -> float:
    """Return the part of the pairs in which a positive item (N,) has the higher score (N,).

    Raises:
        DataError: all labels are alike.
    """
    positive = np.asarray(positive, bool)
    up, down = int(positive.sum()), int((~positive).sum())
    if not up or not down:
        raise DataError("labels are all alike; auc needs both kinds", where="labels")
    total = float(ranks(scores)[positive].sum())
    return (total - up * (up + 1) / 2) / (up * down)


def ranks(values: Floats) -> Floats:
    """Return the rank of each value (N,), counted from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])


def _iou(outputs: Mapping[str, Array], labels: Array) -> Array:
    """Return (N, classes, 2): intersections and unions of each picture's masks; 255 is ignored."""
    scores = first_output(outputs)
    if scores.dtype.kind in "iub":
        found, classes = scores.reshape(labels.shape), int(max(scores.max(), 1)) + 1
    elif scores.ndim < 3 or scores.shape[1] == 1 or scores.shape == labels.shape:
        found, classes = (scores.reshape(labels.shape) > 0.5).astype(np.int64), 2
    else:
        found, classes = scores.argmax(1), scores.shape[1]
    if found.shape != labels.shape:
        raise DataError(
            f"labels of shape {shape_text(labels.shape)} do not fit masks "
            f"{shape_text(found.shape)}",
            where="labels",
            hint="Masks have the size of the model's output, and a class number for each pixel",
        )
    known = labels != 255
    if labels[known].size and labels[known].max() >= classes:
        raise DataError(
            f"hold class {labels[known].max()}, the model has classes 0 to {classes - 1}",
            where="labels",
            hint="Classes are numbered from 0, and 255 is not judged",
        )
    table = np.zeros((len(labels), classes, 2))
    for kind in range(classes):
        a, b = (found == kind) & known, (labels == kind) & known
        rows = (len(labels), -1)
        table[:, kind, 0] = (a & b).reshape(rows).sum(1)
        table[:, kind, 1] = (a | b).reshape(rows).sum(1)
    return table


METRICS = (
    Metric("top1", _top(1), itemwise=True, needs="labels: class numbers (N,) or of positions"),
    Metric("top5", _top(5), itemwise=True, needs="labels: class numbers (N,)"),
    Metric("agreement", _agreement, itemwise=True, wants="reference", needs="the float model"),
    Metric("f1", _f1, itemwise=False, needs="labels: class numbers (N,), or flags (N, classes)"),
    Metric("auc", _auc, itemwise=False, needs="labels: class numbers (N,); 0 and 1 for one score"),
    Metric(
        "miou",
        _iou,
        itemwise=True,
        needs="labels: class numbers of pixels (N, H, W), 255 where not known",
        finish=lambda tables: _mean_iou(np.concatenate([_padded(t, tables) for t in tables])),
    ),
)


def _padded(table: Array, tables: Any) -> Array:
    most = max(t.shape[1] for t in tables)
    return np.pad(table, [(0, 0), (0, most - table.shape[1]), (0, 0)])


def _mean_iou(table: Floats) -> Any:
    from .metric import Pooled, ratio_items

    present = table[..., 1].sum(0) > 0
    parts = [ratio_items(table[:, k, 0], table[:, k, 1]) for k in np.flatnonzero(present)]
    items = np.mean(parts, axis=0)
    return Pooled(float(items.mean()), items)
