"""Biases that make up for the rounding of weights, in models whose arithmetic stays float.

The mean output of a layer moves by the mean input of each channel times the rounding of its
weights, which its bias can take back (Nagel et al. 2019, 4.2). No layer is run twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Batch, Floats, Floats32
from trimtab.core.model import Model

from ...graph.edit import assign_float32, initializer_array
from ...graph.partial_run import channel_rows
from ...graph.queries import attr, input_at, is_onnx_op
from ..judge import Judge, Verdict
from .layer_outputs import outputs_in_parts

#: Weights as they will be, by the initializers that hold them as they are.
Rounded = Mapping[ir.Value, Floats32]


def correct_rounding(
    model: Model, rounded: Rounded, batches: Sequence[Batch], judge: Judge, plain: Verdict
) -> dict[str, Any]:
    """Take the shift of mean outputs by rounding out of biases, where the outputs' error falls.

    Args:
        model: float model, whose biases are changed in place.
        rounded: weights that will take the place of those in the model.
        batches: samples that the mean inputs are taken of.
        judge: judge on other samples.
        plain: its verdict without a correction.

    Returns:
        Notes on what is kept and the errors.
    """
    shifts = _shifts(model, rounded, batches)
    copy = model.clone()
    stored = copy.graph.initializers
    for value, array in rounded.items():
        if value.graph is model.graph:
            assign_float32(stored[str(value.name)], array)
    for bias, shift in shifts.items():
        assign_float32(stored[str(bias.name)], initializer_array(bias) + shift)
    best = judge.of(copy) if shifts else plain
    better = best.loss < plain.loss and best.kept >= plain.kept
    if better:
        for bias, shift in shifts.items():
            assign_float32(bias, initializer_array(bias) + shift)
    best = best if better else plain
    errors = {"squared_relative_error": best.loss, "without_bias_correction": plain.loss}
    return {"fidelity": best.kept, "corrected": len(shifts) if better else 0, **errors}


def _shifts(model: Model, rounded: Rounded, batches: Sequence[Batch]) -> dict[ir.Value, Floats]:
    """Return by how much each bias must move for the mean output to stay.

    The mean input of each channel times the rounding of its weights, summed.
    """
    layers = [node for node in model.graph if _bias(node, rounded) is not None]
    inputs = list(dict.fromkeys(str(node.inputs[0].name) for node in layers if node.inputs[0]))
    if not inputs:
        return {}
    sums: dict[tuple[str, int], Floats] = {}
    counts: dict[tuple[str, int], int] = {}
    wanted = {(str(n.inputs[0].name), _axis(n)) for n in layers if n.inputs[0] is not None}
    for arrays in outputs_in_parts(model, inputs, batches):
        for name, axis in ((name, axis) for name, axis in wanted if name in arrays):
            rows = channel_rows(arrays[name], axis)
            sums[name, axis] = sums.get((name, axis), 0.0) + rows.sum(axis=0, dtype=np.float64)
            counts[name, axis] = counts.get((name, axis), 0) + len(rows)
    found = {}
    for node in layers:
        source, weight, bias = node.inputs[0], node.inputs[1], _bias(node, rounded)
        assert source is not None
        assert weight is not None
        assert bias is not None
        key = (str(source.name), _axis(node))
        lost = initializer_array(weight).astype(np.float64) - rounded[weight]
        found[bias] = _sum(node, lost, sums[key] / max(counts[key], 1))
    return found


def _axis(node: ir.Node) -> int:
    return 1 if node.op_type == "Conv" else -1


def _bias(node: ir.Node, rounded: Rounded) -> ir.Value | None:
    """Return the bias of a layer that a constant shift can be added to."""
    if node.op_type not in {"Conv", "Gemm"} or not is_onnx_op(node):
        return None
    weight, bias = node.inputs[1], input_at(node, 2)
    source = node.inputs[0]
    if weight not in rounded or bias is None or source is None or source.is_initializer():
        return None
    tensor = bias.const_value
    alone = tensor is not None and len(bias.uses()) == 1 and bias.graph is node.graph
    if not alone or bias.is_graph_output() or bias.is_graph_input() or bias in rounded:
        return None
    shape = tuple(tensor.shape.numpy()) if tensor is not None else ()
    scaled = attr(node, "alpha", 1.0) != 1 or attr(node, "beta", 1.0) != 1
    wide = _outputs(node, initializer_array(weight)) if weight is not None else 0
    return None if scaled or attr(node, "transA", 0) or shape != (wide,) else bias


def _outputs(node: ir.Node, weight: Floats32) -> int:
    first = node.op_type == "Conv" or attr(node, "transB", 0)
    return int(weight.shape[0 if first else 1])


def _sum(node: ir.Node, lost: Floats, mean: Floats) -> Floats:
    """Return the sum over inputs of the rounding times their means, (outputs,)."""
    if node.op_type == "Gemm":
        return lost @ mean if attr(node, "transB", 0) else mean @ lost
    groups = attr(node, "group", 1)
    per_input = lost.reshape(*lost.shape[:2], -1).sum(axis=2)  # (outputs, inputs / groups)
    parts = per_input.reshape(groups, -1, per_input.shape[1])
    found: Floats = np.einsum("goi,gi->go", parts, mean.reshape(groups, -1)).reshape(-1)
    return found
