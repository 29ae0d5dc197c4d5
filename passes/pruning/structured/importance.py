"""How much each class of channels matters, by its weights.

A score adds up over all weights that a class has a part in, rows that make a channel and columns
that read it, and is divided by the mean of its group, so that groups compare (DepGraph, Fang et al.
2023). A BatchNormalization behind a weight is folded into it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Array, Floats

from ...graph.constants import constant_array
from ..dependency.groups import Labels
from ..dependency.parts import Sink

#: From a weight (positions, everything else) to a score for each position.
Norm = Callable[[Array], Floats]


def l1(rows: Array) -> Floats:
    """Sum of magnitudes (Li et al. 2017, arXiv 1608.08710)."""
    return np.asarray(np.abs(rows).sum(axis=1, dtype=np.float64))


def l2(rows: Array) -> Floats:
    """Sum of squares."""
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def fpgm(rows: Array) -> Floats:
    """Sum of distances to all other rows: what lies in their middle can be spared.

    He et al. 2019, "Filter pruning via geometric median", arXiv 1811.00250, equation 4: distances
    of the weights themselves, not of their magnitudes.
    """
    flat = rows.astype(np.float64)
    square = np.einsum("ij,ij->i", flat, flat)
    apart = square[:, None] + square[None, :] - 2 * flat @ flat.T
    return np.asarray(np.sqrt(np.maximum(apart, 0)).sum(axis=1))


def weight_scores(labels: Labels, norm: Norm) -> Floats:
    """(classes,) sum of a norm over the weights; what is not weighed has 0."""
    scores = np.zeros(labels.count)
    for sink, axis, classes in _slices(labels, makers_only=norm is fpgm):
        array = _folded(sink).astype(np.float32, copy=False)
        rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        np.add.at(scores, classes, norm(rows))
    return scores


def random_scores(labels: Labels, seed: int) -> Floats:
    """(classes,) the control: what any criterion has to beat."""
    return np.random.default_rng(seed).random(labels.count)


def by_group(labels: Labels, scores: Floats) -> Floats:
    """Floats divided by the mean of their group."""
    result = scores.astype(np.float64).copy()
    for group in labels.groups:
        mean = float(scores[group.classes].mean())
        result[group.classes] = scores[group.classes] / mean if mean > 0 else 1.0
    return result


def _slices(labels: Labels, *, makers_only: bool) -> Iterator[tuple[Sink, int, NDArray[np.int64]]]:
    for sink in labels.weights:
        for axis, classes in labels.axes_of(sink):
            if not (makers_only and axis == sink.into):
                yield sink, axis, classes


def _folded(sink: Sink) -> Array:
    """A weight times the scale of the BatchNormalization that alone reads its operator."""
    array = sink.array()
    users = list(sink.node.outputs[0].uses())
    if len(users) != 1 or users[0][0].op_type != "BatchNormalization" or sink.into is None:
        return array
    norm = users[0][0]
    scale = _vector(norm, 1)
    variance = _vector(norm, 4)
    out = 0 if sink.node.op_type == "Conv" else 1
    if scale is None or variance is None or array.shape[out] != scale.size:
        return array
    given = norm.attributes.get("epsilon")
    factor = np.abs(scale) / np.sqrt(variance + (1e-5 if given is None else given.as_float()))
    return array * factor.reshape([-1 if a == out else 1 for a in range(array.ndim)])


def _vector(node: ir.Node, index: int) -> Array | None:
    value = node.inputs[index]
    return None if value is None else constant_array(value)
