"""High-bias absorption: what is always on top of a channel moves into the next layer's bias.

    c_i = max(0, mean_i - 3 std_i),   b1_i -= c_i,   b2 += sum over i and kernel of W2[:, i] c_i

(Nagel et al. 2019, arXiv 1906.04721, section 4.1.3.) Relu(x - c) = Relu(x) - c wherever x >= c,
which is nearly always: mean and deviation are those of the channel on calibration data, where the
paper takes them from BatchNormalization. So the activation's range shrinks by c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, observing, run
from trimtab.core.target import usable_cpus

from ...base import Declined, Pass, Rewrite
from ...graph.edit import lift_constants, name_nodes
from ...graph.quantized import refuse_quantized
from ...graph.weight_scales import channel_axis
from .scalable_pairs import ScalablePair, find_pairs, groups, out_channels, weight_array

#: Standard deviations below the mean that hold nearly all values.
DEVIATIONS = 3.0
#: A channel whose share of its own mean would be smaller than this is left alone.
SMALLEST = 1e-3


@dataclass(frozen=True)
class AbsorbBias(Pass):
    """Move the part of an activation that is always there into the next layer's bias.

    Run it after Equalize, which makes biases large where it divides a channel by little. Only
    between layers with nothing but a Relu between, the second one without padding: a padded border
    knows nothing of the shift.

    Attributes:
        data: calibration data; the context's where none is named.
        samples: how many of them.
    """

    needs_data: ClassVar[bool] = True

    data: Dataset | None = None
    samples: int = 128

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise OptionError("must be at least 1", where=f"samples={self.samples}")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """See each channel's mean and deviation, then shift."""
        refuse_quantized(model)
        lift_constants(model.graph)
        name_nodes(model.graph)
        pairs, declined = find_pairs(model.graph, clips=False)
        chosen: list[ScalablePair] = []
        for pair in pairs:
            reason = _unfit(pair)
            if reason:
                declined.append(Declined(pair.first.name or "", reason))
            else:
                chosen.append(pair)
        if not chosen:
            return Rewrite(model.ir, declined, {"absorbed": 0})
        data = ctx.dataset(self.data, model, purpose="bias absorption").take(self.samples)
        moved = 0
        for pair, shift in zip(chosen, _shifts(model, chosen, data, ctx), strict=True):
            if shift.any():
                _absorb(model.graph, pair, shift)
                moved += 1
        return Rewrite(model.ir, declined, {"absorbed": moved})


def _unfit(pair: ScalablePair) -> str:
    first, second = pair.first, pair.second
    if [node.op_type for node in pair.between] != ["Relu"]:
        return "more than a Relu stands between it and its reader"
    if first.op_type == "MatMul" or second.op_type == "MatMul":
        return "a MatMul has no bias of its own"
    if first.op_type != "Conv" and "beta" in first.attributes:
        return "its bias is scaled"
    if second.op_type != "Conv":
        scaled = {"alpha", "beta"} & set(second.attributes)
        return "its reader's product is scaled" if scaled else _bias_reason(pair)
    attributes = second.attributes
    padded = "pads" in attributes and any(attributes["pads"].as_ints())
    auto = "auto_pad" in attributes and attributes["auto_pad"].as_string() not in {
        "NOTSET",
        "VALID",
    }
    return (
        "its reader pads, and a border knows nothing of a shift"
        if padded or auto
        else (_bias_reason(pair))
    )


def _bias_reason(pair: ScalablePair) -> str:
    """Why one of the biases cannot be shifted; nothing where both can."""
    if len(pair.first.inputs) < 3 or pair.first.inputs[2] is None:
        return "it has no bias"
    bias = pair.second.inputs[2] if len(pair.second.inputs) > 2 else None
    if bias is None:
        return ""
    fixed = bias.const_value
    own = len(bias.uses()) == 1 and not bias.is_graph_input()
    if fixed is None or not own or fixed.shape.numpy() != (out_channels(pair.second),):
        return "its reader's bias is shared, computed, or not one value for each channel"
    return ""


def _shifts(model: Model, pairs: list[ScalablePair], data: Dataset, ctx: Context) -> list[Floats]:
    """How much of each channel of each first layer is always there: (channels,)."""
    names = [pair.first.outputs[0].name or "" for pair in pairs]
    axes = [1 if pair.first.op_type == "Conv" else -1 for pair in pairs]
    session = build_session(observing(model, names), SessionConfig(threads=usable_cpus()))
    sums = [np.zeros((2, out_channels(pair.first))) for pair in pairs]
    counts = [0] * len(pairs)
    batches = fitting(model, data, rows=16)
    for batch in ctx.progress.track(batches, "collecting means", batches.batches):
        arrays = run(session, batch.feeds, names)
        for i, (name, axis) in enumerate(zip(names, axes, strict=True)):
            flat = np.moveaxis(arrays[name], axis, -1)
            flat = flat.reshape(-1, flat.shape[-1]).astype(np.float64)
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
    own = first.inputs[2]
    assert own is not None
    assert own.const_value is not None
    _assign(own, own.const_value.numpy() - shift)
    added = _response(second, shift)
    if len(second.inputs) > 2 and second.inputs[2] is not None:
        bias = second.inputs[2]
        assert bias.const_value is not None
        _assign(bias, bias.const_value.numpy() + added)
        return
    name = f"{second.name}_absorbed"
    value = ir.val(name, const_value=ir.tensor(added.astype(np.float32), name=name))
    graph.register_initializer(value)
    second.resize_inputs(3)
    second.replace_input_with(2, value)


def _response(node: ir.Node, shift: Floats) -> Floats:
    """What a layer makes of an input that is `shift` everywhere: (outputs,)."""
    weight = weight_array(node)
    if node.op_type != "Conv":
        rows = weight if channel_axis(node) == 0 else weight.T
        return rows @ np.repeat(shift, rows.shape[1] // len(shift))
    parts = groups(node)
    kernel = weight.reshape(parts, weight.shape[0] // parts, weight.shape[1], -1).sum(axis=3)
    result: Floats = np.einsum("goi,gi->go", kernel, shift.reshape(parts, -1)).reshape(-1)
    return result


def _assign(value: ir.Value, array: Floats) -> None:
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
