"""Metrics of numbers: distances to labels, or to the float model where there are none.

Labels belong to the first output. Against the float model all float outputs are compared, and of
each item the worst counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..data import Array, Floats, tensors
from ..errors import DataError
from ..text import shape_text
from .classification import ranks
from .metric import Metric, Score, first_output


def _rows(mine: Array, wanted: Array) -> tuple[Floats, Floats]:
    """Return outputs and truth, a row (values,) for each item."""
    if mine.size != wanted.size:
        raise DataError(
            f"labels of shape {shape_text(wanted.shape)} do not fit outputs "
            f"{shape_text(mine.shape)}",
            where="labels",
        )
    return (
        mine.reshape(len(mine), -1).astype(np.float64),
        wanted.reshape(len(mine), -1).astype(np.float64),
    )


def _pair(outputs: Mapping[str, Array], truth: Any) -> tuple[Floats, Floats]:
    """Return the first output and its truth, a row (values,) for each item."""
    wanted = first_output(truth) if isinstance(truth, Mapping) else np.asarray(truth)
    return _rows(first_output(outputs), wanted)


def _of_worst(score: Callable[[Floats, Floats], Floats], *, lower_is_better: bool = False) -> Score:
    """Return a score of each item: of the first output by labels, of the worst by a reference."""
    worst = np.max if lower_is_better else np.min

    def scored(outputs: Mapping[str, Array], truth: Any) -> Array:
        if not isinstance(truth, Mapping):
            return score(*_pair(outputs, truth))
        items = len(first_output(truth))
        values = [score(*_rows(*pair)) for pair in _float_pairs(outputs, truth)]
        # An output that has no row for each item counts as a whole for all of them.
        each = [v if len(v) == items else np.full(items, worst(v)) for v in values]
        return np.asarray(worst(each, axis=0))

    return scored


def _float_pairs(
    outputs: Mapping[str, Array], truth: Mapping[str, Array]
) -> list[tuple[Array, Array]]:
    """Return float outputs that have elements, and their truth; all outputs where there is none.

    They are paired by name, or by position where the names are others.
    """
    outputs, truth = tensors(outputs), tensors(truth)
    mine = [outputs[name] for name in truth] if truth.keys() <= outputs.keys() else outputs.values()
    pairs = [
        (np.atleast_1d(a), np.atleast_1d(b)) for a, b in zip(mine, truth.values(), strict=False)
    ]
    return [(a, b) for a, b in pairs if b.dtype.kind == "f" and b.size] or pairs


def _cosine(a: Floats, b: Floats) -> Floats:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    value = (a * b).sum(1) / np.maximum(norms, 1e-12)
    return np.asarray(np.where(a.any(1) | b.any(1), value, 1.0))


def _neg_mse(a: Floats, b: Floats) -> Floats:
    return np.asarray(-((a - b) ** 2).mean(1))


def _mae(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.abs(a - b).mean(1))


def _psnr(a: Floats, b: Floats) -> Floats:
    """Return decibels of each item, of a range of 1, or of 255 where the truth exceeds 2."""
    peak = 255.0 if np.abs(b).max() > 2 else 1.0
    noise = np.maximum(((a - b) ** 2).mean(1), 1e-10 * peak**2)
    return np.asarray(10 * np.log10(peak**2 / noise))


def _si_snr(a: Floats, b: Floats) -> Floats:
    """Return the scale-invariant ratio of signal to noise in decibels (Le Roux et al. 2019)."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    part = (a * b).sum(1, keepdims=True) / np.maximum((b * b).sum(1, keepdims=True), 1e-12)
    target = part * b
    noise = np.square(a - target).sum(1)
    return np.asarray(10 * np.log10((np.square(target).sum(1) + 1e-12) / (noise + 1e-12)))


def _pearson(outputs: Mapping[str, Array], truth: Any) -> float:
    a, b = (array.ravel() for array in _pair(outputs, truth))
    return float(np.corrcoef(a, b)[0, 1])


def _spearman(outputs: Mapping[str, Array], truth: Any) -> float:
    a, b = (ranks(array.ravel()) for array in _pair(outputs, truth))
    return float(np.corrcoef(a, b)[0, 1])


_NUMBERS = "labels: numbers of the output's shape"
_EITHER = f"{_NUMBERS}; the float model where there are none"
METRICS = (
    Metric("cosine", _of_worst(_cosine), itemwise=True, wants="reference", needs="the float model"),
    Metric("neg_mse", _of_worst(_neg_mse), itemwise=True, wants="either", needs=_EITHER),
    Metric(
        "mae",
        _of_worst(_mae, lower_is_better=True),
        itemwise=True,
        wants="either",
        needs=_EITHER,
        lower_is_better=True,
    ),
    Metric("psnr", _of_worst(_psnr), itemwise=True, wants="either", needs=_EITHER),
    Metric("si_snr", _of_worst(_si_snr), itemwise=True, wants="either", needs=_EITHER),
    Metric("pearson", _pearson, itemwise=False, needs=_NUMBERS),
    Metric("spearman", _spearman, itemwise=False, needs=_NUMBERS),
)
