"""Metrics of numbers: distances to labels, or to the float model where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data import Array, Floats
from ..errors import DataError
from .classification import ranks
from .metric import Metric, first_output


def _pair(outputs: Mapping[str, Array], truth: Any) -> tuple[Floats, Floats]:
    """Return outputs and truth, a row (values,) for each item."""
    mine = first_output(outputs)
    wanted = first_output(truth) if isinstance(truth, Mapping) else np.asarray(truth)
    if mine.size != wanted.size:
        raise DataError(
            f"labels of shape {list(wanted.shape)} do not fit outputs {list(mine.shape)}",
            where="labels",
        )
    return (
        mine.reshape(len(mine), -1).astype(np.float64),
        wanted.reshape(len(mine), -1).astype(np.float64),
    )


def _cosine(outputs: Mapping[str, Array], truth: Any) -> Array:
    a, b = _pair(outputs, truth)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(1) / np.maximum(norms, 1e-12))


def _neg_mse(outputs: Mapping[str, Array], truth: Any) -> Array:
    a, b = _pair(outputs, truth)
    return np.asarray(-((a - b) ** 2).mean(1))


def _mae(outputs: Mapping[str, Array], truth: Any) -> Array:
    a, b = _pair(outputs, truth)
    return np.asarray(np.abs(a - b).mean(1))


def _psnr(outputs: Mapping[str, Array], truth: Any) -> Array:
    """Return decibels of each item, of a range of 1, or of 255 where the truth exceeds 2."""
    a, b = _pair(outputs, truth)
    peak = 255.0 if np.abs(b).max() > 2 else 1.0
    noise = np.maximum(((a - b) ** 2).mean(1), 1e-10 * peak**2)
    return np.asarray(10 * np.log10(peak**2 / noise))


def _si_snr(outputs: Mapping[str, Array], truth: Any) -> Array:
    """Return the scale-invariant ratio of signal to noise in decibels (Le Roux et al. 2019)."""
    a, b = _pair(outputs, truth)
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
    Metric("cosine", _cosine, itemwise=True, wants="reference", needs="the float model"),
    Metric("neg_mse", _neg_mse, itemwise=True, wants="either", needs=_EITHER),
    Metric("mae", _mae, itemwise=True, wants="either", needs=_EITHER, lower_is_better=True),
    Metric("psnr", _psnr, itemwise=True, wants="either", needs=_EITHER),
    Metric("si_snr", _si_snr, itemwise=True, wants="either", needs=_EITHER),
    Metric("pearson", _pearson, itemwise=False, needs=_NUMBERS),
    Metric("spearman", _spearman, itemwise=False, needs=_NUMBERS),
)
