"""High-bias absorption: the constant part of a channel moves into the next layer's bias.

    c_i = max(0, mean_i - 3 std_i),   b1_i -= c_i,   b2 += sum over i and kernel of W2[:, i] c_i

(Nagel et al. 2019, arXiv 1906.04721, section 4.1.3.) Relu(x - c) = Relu(x) - c wherever x >= c,
which is nearly always. Mean and deviation are measured on calibration data; the paper takes them
from BatchNormalization. The activation's range shrinks by c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model

from ...base import Pass, Rewrite
from ...calibration.observation import observe
from ...graph.declined import Declined
from ...graph.edit import add_initializer, assign_float32, initializer_array
from ...graph.partial_run import channel_rows
from ...graph.quantized import prepare_float
from ...graph.queries import attr, input_at, is_free_to_change
from ...graph.stored.weight_scales import channel_axis
from .scalable_pairs import ScalablePair, find_pairs, group_count, out_channels, weight_array

#: Standard deviations below the mean that hold nearly all values.
DEVIATIONS = 3.0
#: Smallest shift, relative to the channel's mean; smaller ones are left out.
SMALLEST = 1e-3
_UNPADDED = frozenset({"NOTSET", "VALID"})


@dataclass(frozen=True)
class AbsorbBias(Pass):
    """Move the constant part of an activation into the next layer's bias.

    Run it after Equalize, which makes biases large where it divides a channel by little. Applies to
    layers with only a Relu between them, the second one without padding, since a padded border does
    not get the shift.

    Attributes:
        data: calibration data; that of the run if not given.
        samples: number of samples.
    """

    needs_data: ClassVar[bool] = True
    layers_only: ClassVar[bool] = True

    data: Dataset | None = None
    samples: int = 128

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise OptionError("must be at least 1", where=f"samples={self.samples}")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Measure each channel's mean and deviation, then shift."""
        prepare_float(model)
        pairs, declined = find_pairs(model.graph, clips=False)
        reasons = [(pair, _decline_reason(pair)) for pair in pairs]
        declined += [Declined(pair.first.name or "", reason) for pair, reason in reasons if reason]
        chosen = [pair for pair, reason in reasons if not reason]
        if not chosen:
            return Rewrite(model.ir, declined, {"absorbed": 0})
        data = ctx.dataset(self.data, model, purpose="bias absorption").take(self.samples)
        shifts = zip(chosen, _shifts(model, chosen, data, ctx), strict=True)
        moved = [(pair, shift) for pair, shift in shifts if shift.any()]
        for pair, shift in moved:
            _absorb(model.graph, pair, shift)
        return Rewrite(model.ir, declined, {"absorbed": len(moved)})


def _decline_reason(pair: ScalablePair) -> str:
    first, second = pair.first, pair.second
    if [node.op_type for node in pair.between] != ["Relu"]:
        return "more than a Relu stands between it and its reader"
    if first.op_type == "MatMul" or second.op_type == "MatMul":
        return "a MatMul has no bias of its own"
    if first.op_type != "Conv" and "beta" in first.attributes:
        return "its bias is scaled"
    if second.op_type != "Conv":
        if {"alpha", "beta"} & set(second.attributes):
            return "its reader's product is scaled"
    elif any(attr(second, "pads", ())) or attr(second, "auto_pad", "NOTSET") not in _UNPADDED:
        return "its reader pads, and a padded border does not get the shift"
    return _bias_reason(first, second)


def _bias_reason(first: ir.Node, second: ir.Node) -> str:
    """Return the reason why one of the biases cannot be shifted, empty where both can."""
    if input_at(first, 2) is None:
        return "it has no bias"
    bias = input_at(second, 2)
    if bias is None:
        return ""
    fixed = bias.const_value
    own = is_free_to_change(bias)
    if fixed is None or not own or fixed.shape.numpy() != (out_channels(second),):
        return "its reader's bias is shared, computed, or not one value for each channel"
    return ""


def _shifts(model: Model, pairs: list[ScalablePair], data: Dataset, ctx: Context) -> list[Floats]:
    """Return the constant part of each channel of each first layer: (channels,)."""
    names = [pair.first.outputs[0].name or "" for pair in pairs]
    axes = [1 if pair.first.op_type == "Conv" else -1 for pair in pairs]
    sums = [np.zeros((2, out_channels(pair.first))) for pair in pairs]
    counts = [0] * len(pairs)
    for arrays in observe(model, names, data, ctx, "collecting means"):
        for i, (name, axis) in enumerate(zip(names, axes, strict=True)):
            flat = channel_rows(arrays[name], axis).astype(np.float64)
            sums[i] += flat.sum(axis=0), np.square(flat).sum(axis=0)
            counts[i] += len(flat)
    found = []
    for total, count in zip(sums, counts, strict=True):
        mean, square = total / max(count, 1)
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        shift = np.maximum(mean - DEVIATIONS * deviation, 0)
        found.append(np.where(shift > SMALLEST * np.abs(mean), shift, 0.0))
    return found


def _absorb(graph: ir.Graph, pair: ScalablePair, shift: Floats) -> None:
    first, second = pair.first, pair.second
    assign_float32(first.inputs[2], initializer_array(first.inputs[2]) - shift)
    added = _response(second, shift)
    bias = input_at(second, 2)
    if bias is not None:
        assign_float32(bias, initializer_array(bias) + added)
        return
    value = add_initializer(graph, f"{second.name}_absorbed", added.astype(np.float32))
    second.resize_inputs(3)
    second.replace_input_with(2, value)


def _response(node: ir.Node, shift: Floats) -> Floats:
    """Return a layer's output, without bias, for an input of `shift` everywhere: (outputs,)."""
    weight = weight_array(node)
    if node.op_type != "Conv":
        rows = weight if channel_axis(node) == 0 else weight.T
        return rows @ np.repeat(shift, rows.shape[1] // len(shift))
    groups = group_count(node)
    kernel = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).sum(axis=3)
    return np.asarray(np.einsum("goi,gi->go", kernel, shift.reshape(groups, -1)).reshape(-1))
