"""Scales of weights: the largest magnitude of a channel, or the one of the least squared error.

A weight clipped to a threshold is quantized with the threshold as its largest magnitude, so the
scale that was found is passed on by clipping the float weight.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Floats32

from ..queries import attr

#: Thresholds to try, as fractions of the largest magnitude, from 1 down.
PARTS = np.linspace(1.0, 0.5, 41)


def clip_weights(
    graph: ir.Graph, exclude: Collection[str], *, per_channel: bool, largest: int
) -> int:
    """Clip the weights of products to the threshold of the least squared error, in place.

    Args:
        graph: graph whose weights to clip; new tensors are assigned, none is written to.
        exclude: names of nodes that stay float.
        per_channel: true for one threshold for each output channel.
        largest: largest integer of a weight.

    Returns:
        The number of clipped weights.
    """
    clipped = 0
    done: set[str] = set()
    for node in graph:
        axis = channel_axis(node)
        weight = node.inputs[1] if axis is not None else None
        if axis is None or weight is None or node.name in exclude or weight.name in done:
            continue
        if weight.const_value is None or weight.dtype != ir.DataType.FLOAT:
            continue
        if not _only_weighs(weight, axis, exclude):
            continue
        done.add(weight.name or "")
        values = weight.const_value.numpy()
        if values.size and values.ndim >= 2:
            limit = thresholds(values, axis if per_channel else None, largest)
            new = np.clip(values, -limit, limit)
            clipped += bool((new != values).any())
            weight.const_value = ir.tensor(new, name=weight.name)
    return clipped


def _only_weighs(weight: ir.Value, axis: int, exclude: Collection[str]) -> bool:
    """Return whether products that are quantized alone read a weight, with its channels there."""
    return not weight.is_graph_output() and all(
        index == 1
        and node.graph is weight.graph
        and channel_axis(node) == axis
        and node.name not in exclude
        for node, index in weight.uses()
    )


def channel_axis(node: ir.Node) -> int | None:
    """Return the axis of output channels of the weight of Conv, Gemm or MatMul, else None."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attr(node, "transB", 0) else 1
    return -1 if node.op_type == "MatMul" else None


def thresholds(values: Floats32, axis: int | tuple[int, ...] | None, largest: int) -> Floats32:
    """Return the clipping thresholds of the least squared error, which broadcast to the weight.

    There is one for each place along the axis or axes, or a single one where None.
    """
    own = [] if axis is None else [i % values.ndim for i in np.atleast_1d(axis)]
    axes = tuple(i for i in range(values.ndim) if i not in own) if own else None
    full = np.abs(values).max(axis=axes, keepdims=True)
    best, least = full, np.full(full.shape, np.inf)
    for part in PARTS:
        limit = np.maximum(full * np.float32(part), np.float32(1e-30))
        scale = limit / largest
        rounded = np.clip(np.round(values / scale), -largest, largest) * scale
        error = np.square(rounded - values).sum(axis=axes, keepdims=True)
        better = error < least
        best, least = np.where(better, limit, best), np.where(better, error, least)
    found: Floats32 = best.astype(np.float32)
    return found
