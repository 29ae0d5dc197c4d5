"""Importance of units of channels by their weights.

A score is the sum over all weights of a unit, rows that produce a channel and columns that read it,
divided by the mean of its group, so that groups compare (DepGraph, Fang et al. 2023). A
BatchNormalization behind a weight is folded into it first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trimtab.core.data import Array, Floats

from ..dependency.graph import DependencyGraph
from ..dependency.records import Operand, constant_input

#: Function from a weight (positions, everything else) to a score for each position.
Norm = Callable[[Array], Floats]


def l1(rows: Array) -> Floats:
    """Return sums of magnitudes (Li et al. 2017, arXiv 1608.08710)."""
    return np.asarray(np.abs(rows).sum(axis=1, dtype=np.float64))


def l2(rows: Array) -> Floats:
    """Return sums of squares."""
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def fpgm(rows: Array) -> Floats:
    """Return sums of distances to all other rows: a row in their middle is redundant.

    He et al. 2019, "Filter pruning via geometric median", arXiv 1811.00250, equation 4: distances
    of the weights themselves, not of their magnitudes.
    """
    flat = rows.astype(np.float64)
    square = np.einsum("ij,ij->i", flat, flat)
    apart = square[:, None] + square[None, :] - 2 * flat @ flat.T
    return np.asarray(np.sqrt(np.maximum(apart, 0)).sum(axis=1))


def weight_scores(graph: DependencyGraph, norm: Norm) -> Floats:
    """Return the sum of a norm over the weights of each unit, (units,); 0 without any weight."""
    scores = np.zeros(graph.num_units)
    for row in graph.weight_axes:
        if norm is fpgm and not row.produces:
            continue
        array = _folded(row.operand).astype(np.float32, copy=False)
        rows = np.moveaxis(array, row.axis, 0).reshape(array.shape[row.axis], -1)
        np.add.at(scores, row.units, norm(rows))
    return scores


def normalize_by_group(graph: DependencyGraph, scores: Floats) -> Floats:
    """Return scores divided by the mean of their group."""
    result = scores.astype(np.float64).copy()
    for group in graph.groups:
        mean = float(scores[group.units].mean())
        result[group.units] = scores[group.units] / mean if mean > 0 else 1.0
    return result


def _folded(operand: Operand) -> Array:
    """Return a weight times the scale of a BatchNormalization that alone reads its operator."""
    array = operand.array()
    users = list(operand.node.outputs[0].uses())
    norm = users[0].node if len(users) == 1 else None
    if norm is None or norm.op_type != "BatchNormalization" or operand.input_axis is None:
        return array
    scale, variance = constant_input(norm, 1), constant_input(norm, 4)
    out = 0 if operand.node.op_type == "Conv" else 1
    if scale is None or variance is None or array.shape[out] != scale.size:
        return array
    factor = np.abs(scale) / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    return array * factor.reshape([-1 if a == out else 1 for a in range(array.ndim)])
