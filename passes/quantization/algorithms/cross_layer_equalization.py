"""Cross-layer equalisation: the same function with weights of even range over the channels.

    s_i = sqrt(r1_i / r2_i),   W1[i] /= s_i,   b1_i /= s_i,   W2[:, i] *= s_i

with r the largest magnitude of a channel's weights (Nagel et al. 2019, "Data-free quantization
through weight equalization and bias correction", arXiv 1906.04721, section 4.1), so that both
become sqrt(r1_i r2_i). Sweeps over all pairs of layers are repeated until nothing moves: a
depthwise layer between two others then gets, like them, the cube root of r1_i r2_i r3_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.model import Model

from ...base import Pass, Rewrite
from ...graph.edit import add_initializer, assign_float32, initializer_array
from ...graph.quantized import prepare_float
from ...graph.queries import input_at
from .scalable_pairs import (
    ScalablePair,
    by_output,
    channel_constant,
    clip_bound,
    find_pairs,
    largest_by_input,
    out_channels,
    scaled_input,
    scaled_output,
    weight_array,
)

#: Most sweeps; each at least halves the remaining imbalance.
SWEEPS = 60
#: Largest log2 of a factor in the last sweep.
TOLERANCE = 1e-3
#: Factors of a pair, all sweeps together, stay within this and its inverse.
LARGEST = 4096.0


@dataclass(frozen=True)
class Equalize(Pass):
    """Move factors between neighbouring layers until the weights of all channels are alike.

    The function stays the same. It fixes int8 weights with one scale for a whole tensor, and
    activations with a few channels far larger than the others.

    Attributes:
        clips: allow a Clip between zero and a bound (ReLU6) between two layers. Its bound then
            becomes a Min with one value for each channel, which is exact, but runs in float on
            every target.
    """

    tolerance: ClassVar[float | None] = 1e-4
    layers_only: ClassVar[bool] = True

    clips: bool = False

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:  # noqa: ARG002
        """Find the pairs, sweep until their ranges are equal, write the weights."""
        prepare_float(model)
        pairs, declined = find_pairs(model.graph, clips=self.clips)
        weights = {node: weight_array(node) for pair in pairs for node in (pair.first, pair.second)}
        before = _spread(pairs, weights)
        factors = _balance(pairs, weights)
        changed = [i for i, s in enumerate(factors) if np.abs(np.log2(s)).max() > 10 * TOLERANCE]
        for index in changed:
            _write_between(model.graph, pairs[index], factors[index])
        originals = {node: weight_array(node) for node in weights}
        for index in changed:
            first, second, s = pairs[index].first, pairs[index].second, factors[index]
            originals[first] = scaled_output(first, originals[first], 1 / s)
            originals[second] = scaled_input(second, originals[second], s)
        for node in {n: None for i in changed for n in (pairs[i].first, pairs[i].second)}:
            assign_float32(node.inputs[1], originals[node])
        report: dict[str, Any] = {"pairs": len(pairs), "changed": len(changed)}
        if changed:
            report |= {"spread_before": before, "spread_after": _spread(pairs, originals)}
        return Rewrite(model.ir, declined, report)


def _balance(pairs: Sequence[ScalablePair], weights: dict[ir.Node, Floats]) -> list[Floats]:
    """Sweep over the pairs, updating `weights`, and return each pair's factors."""
    total = [np.ones(out_channels(pair.first)) for pair in pairs]
    for _ in range(SWEEPS):
        moved = 0.0
        for index, pair in enumerate(pairs):
            first, second = weights[pair.first], weights[pair.second]
            r1 = np.abs(by_output(pair.first, first)).max(axis=1)
            r2 = largest_by_input(pair.second, second, len(r1))
            alive = (r1 > 0) & (r2 > 0)
            s = np.sqrt(np.where(alive, r1, 1.0) / np.where(alive, r2, 1.0))
            s = np.clip(total[index] * s, 1 / LARGEST, LARGEST) / total[index]
            total[index] = total[index] * s
            weights[pair.first] = scaled_output(pair.first, first, 1 / s)
            weights[pair.second] = scaled_input(pair.second, second, s)
            moved = max(moved, float(np.abs(np.log2(s)).max()))
        if moved < TOLERANCE:
            break
    return total


def _spread(pairs: Sequence[ScalablePair], weights: dict[ir.Node, Floats]) -> float:
    """Return the mean over layers of log2 of the largest channel relative to the median."""
    values = []
    for node in dict.fromkeys(pair.first for pair in pairs):
        largest = np.abs(by_output(node, weights[node])).max(axis=1)
        largest = largest[largest > 0]
        if largest.size:
            values.append(float(np.log2(largest.max() / np.median(largest))))
    return round(float(np.mean(values)), 3) if values else 0.0


def _write_between(graph: ir.Graph, pair: ScalablePair, s: Floats) -> None:
    """Divide the first layer's bias and the operators between the layers by the factors."""
    bias = input_at(pair.first, 2)
    if bias is not None:
        assign_float32(bias, initializer_array(bias).astype(np.float64) / s)
    for node in pair.between:
        value = channel_constant(node, pair.first) if node.op_type in {"Add", "Min"} else None
        if value is not None:
            array = initializer_array(value).astype(np.float64)
            assign_float32(value, (array.reshape(-1) / s).reshape(array.shape))
        if node.op_type == "Clip":
            _bound_by_channel(graph, node, pair.first, s)


def _bound_by_channel(graph: ir.Graph, clip: ir.Node, first: ir.Node, s: Floats) -> None:
    """Replace Clip(0, b) by Relu and Min with b / s_i."""
    bound = clip_bound(clip)
    assert bound is not None
    old = clip.outputs[0]
    rank = weight_array(first).ndim
    shape = [1, -1, *[1] * (rank - 2)] if first.op_type == "Conv" else [-1]
    bounds = (bound / s).astype(np.float32).reshape(shape)
    limit = add_initializer(graph, f"{old.name}_bound", bounds)
    relu = ir.node("Relu", [clip.inputs[0]], name=f"{clip.name}_relu")
    least = ir.node("Min", [relu.outputs[0], limit], name=f"{clip.name}_min")
    relu.outputs[0].name, name = f"{old.name}_relu", old.name
    for output in (relu.outputs[0], least.outputs[0]):
        output.dtype, output.shape = ir.DataType.FLOAT, old.shape
    graph.insert_before(clip, [relu, least])
    old.replace_all_uses_with(least.outputs[0])
    graph.remove(clip, safe=True)
    least.outputs[0].name = name
