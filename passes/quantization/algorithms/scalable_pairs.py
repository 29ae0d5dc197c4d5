"""Pairs of layers between which a positive factor per channel can be moved without a trace.

The first layer's output channel i is divided by s_i, the second one's input channel i multiplied.
What stands between must be positively homogeneous, f(x / s) = f(x) / s, and nobody else may read
any tensor on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Floats

from ...base import Declined
from ...graph.weight_scales import channel_axis
from ..qdq.int8_operators import PRODUCTS

#: Operators that a positive factor per channel passes through.
HOMOGENEOUS = frozenset(
    {
        "AveragePool",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "PRelu",
        "Relu",
    }
)


@dataclass(frozen=True)
class ScalablePair:
    """Two layers and what stands between.

    Attributes:
        first: whose output channels are divided.
        between: operators from the first to the second.
        second: whose input channels are multiplied.
    """

    first: ir.Node
    between: tuple[ir.Node, ...]
    second: ir.Node


def find_pairs(graph: ir.Graph, *, clips: bool) -> tuple[list[ScalablePair], list[Declined]]:
    """All pairs in graph order, and the layers that end in no pair, with the reason.

    Args:
        graph: its constants are initializers, its nodes have names.
        clips: whether Clip(0, b) may stand between; it needs a bound per channel then.
    """
    pairs: list[ScalablePair] = []
    declined: list[Declined] = []
    for node in graph:
        if node.op_type not in PRODUCTS:
            continue
        found = _follow(node, clips=clips)
        if isinstance(found, ScalablePair):
            pairs.append(found)
        elif found:
            declined.append(Declined(node.name or "", found))
    return pairs, declined


def _follow(first: ir.Node, *, clips: bool) -> ScalablePair | str:
    """The pair that begins with this layer; else why there is none, nothing at the graph's end."""
    if not _own_weight(first):
        return "its weight is shared, computed, or not float32"
    between: list[ir.Node] = []
    node = first
    while True:
        value = node.outputs[0]
        uses = list(value.uses())
        if value.is_graph_output() or not uses:
            return ""
        if len(uses) > 1:
            return "its output has several readers"
        node, index = uses[0].node, uses[0].idx
        if node.op_type in PRODUCTS:
            break
        reason = _blocks(node, first, clips=clips)
        if reason:
            return reason
        between.append(node)
    pair = ScalablePair(first, tuple(between), node)
    return _unfit(pair, index) or pair


def _blocks(node: ir.Node, first: ir.Node, *, clips: bool) -> str:
    """Why a factor does not pass through the operator; nothing where it does."""
    if node.graph is not first.graph:
        return "its output is read inside of a subgraph"
    if node.op_type in HOMOGENEOUS:
        flat = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        return "" if node.op_type != "Flatten" or flat == 1 else "a Flatten moves its channels"
    if node.op_type == "Clip":
        bound = clip_bound(node)
        if bound is None:
            return "a Clip that does not begin at zero stands behind it"
        return "" if clips else "the upper bound of a Clip behind it is one for all channels"
    if node.op_type in {"Add", "Min"} and channel_constant(node, first) is not None:
        return ""
    return f"{node.op_type} behind it does not scale with its input"


def _unfit(pair: ScalablePair, index: int) -> str:
    second, channels = pair.second, out_channels(pair.first)
    if index != 0 or not _own_weight(second):
        return "the weight of its reader is shared, computed, or not float32"
    if second.op_type == "Gemm" and _int(second, "transA"):
        return "its reader transposes it"
    bias = pair.first.inputs[2] if len(pair.first.inputs) > 2 else None
    if bias is not None:
        fixed = bias.const_value
        if fixed is None or len(bias.uses()) > 1 or fixed.shape.numpy() not in {(channels,)}:
            return "its bias is shared, computed, or not one value for each channel"
    flat = any(node.op_type == "Flatten" for node in pair.between)
    if (pair.first.op_type == "Conv") != (second.op_type == "Conv") and not flat:
        return "channels lie on another axis for its reader"
    inputs = in_channels(second)
    if inputs != channels and not (flat and inputs % channels == 0):
        return "its reader counts other channels"
    return ""


def _own_weight(node: ir.Node) -> bool:
    value = node.inputs[1]
    if value is None or value.const_value is None or value.is_graph_input():
        return False
    rank = len(value.const_value.shape)
    plain = rank == 2 if node.op_type != "Conv" else rank >= 3
    return plain and value.dtype == ir.DataType.FLOAT and len(value.uses()) == 1


def clip_bound(node: ir.Node) -> float | None:
    """The upper bound of Clip(0, b); None for any other Clip."""
    bounds = [_scalar(node, 1), _scalar(node, 2)]
    if bounds[0] != 0.0 or bounds[1] is None or bounds[1] <= 0:
        return None
    return bounds[1]


def channel_constant(node: ir.Node, first: ir.Node) -> ir.Value | None:
    """The constant of an Add or Min that holds one value for each channel of the first layer."""
    if len(node.inputs) != 2:
        return None
    constants = [v for v in node.inputs if v is not None and v.const_value is not None]
    if len(constants) != 1 or len(constants[0].uses()) > 1 or constants[0].is_graph_input():
        return None
    tensor = constants[0].const_value
    assert tensor is not None
    channels = out_channels(first)
    shape = list(tensor.shape.numpy())
    rank = len(weight_array(first).shape) if first.op_type == "Conv" else len(shape)
    axis = 1 if first.op_type == "Conv" else len(shape) - 1
    wanted = [channels if i == axis else 1 for i in range(rank)]
    # A Conv's constant may leave out the batch axis.
    fits = shape in (wanted, wanted[1:]) if first.op_type == "Conv" else shape == wanted
    return constants[0] if fits and shape else None


def weight_array(node: ir.Node) -> Floats:
    """A layer's weight, in double precision."""
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)


def out_channels(node: ir.Node) -> int:
    """Number of output channels of a layer."""
    axis = channel_axis(node)
    assert axis is not None
    return int(weight_shape(node)[axis])


def in_channels(node: ir.Node) -> int:
    """Number of input channels of a layer."""
    shape = weight_shape(node)
    if node.op_type == "Conv":
        return shape[1] * groups(node)
    return shape[1] if channel_axis(node) == 0 else shape[0]


def weight_shape(node: ir.Node) -> tuple[int, ...]:
    """The shape of a layer's weight."""
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    return tuple(value.const_value.shape.numpy())


def groups(node: ir.Node) -> int:
    """Groups of a convolution."""
    return _int(node, "group") or 1


def by_output(node: ir.Node, weight: Floats) -> Floats:
    """A view of a weight as (output channels, rest)."""
    axis = channel_axis(node)
    assert axis is not None
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def largest_by_input(node: ir.Node, weight: Floats, channels: int) -> Floats:
    """Largest magnitude that multiplies each input channel: (channels,)."""
    result: Floats = np.abs(_input_view(node, weight, channels)).max(axis=(1, 3)).reshape(channels)
    return result


def scaled_output(node: ir.Node, weight: Floats, factors: Floats) -> Floats:
    """The weight with each output channel multiplied."""
    axis = channel_axis(node)
    assert axis is not None
    shape = [1] * weight.ndim
    shape[axis] = -1
    return weight * factors.reshape(shape)


def scaled_input(node: ir.Node, weight: Floats, factors: Floats) -> Floats:
    """The weight with what multiplies each input channel multiplied."""
    view = _input_view(node, weight, len(factors))
    parts = view.shape[0]
    scaled = view * factors.reshape(parts, 1, len(factors) // parts, 1)
    if node.op_type == "Conv" or channel_axis(node) == 0:
        return scaled.reshape(weight.shape)
    return scaled.reshape(weight.shape[::-1]).T


def _input_view(node: ir.Node, weight: Floats, channels: int) -> Floats:
    """(groups, outputs of a group, input channels of a group, values of each)."""
    if node.op_type == "Conv":
        parts = groups(node)
        return weight.reshape(parts, weight.shape[0] // parts, weight.shape[1], -1)
    rows = weight if channel_axis(node) == 0 else weight.T  # (out, in)
    return rows.reshape(1, rows.shape[0], channels, -1)


def _int(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int() if name in node.attributes else 0


def _scalar(node: ir.Node, index: int) -> float | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().reshape(-1)[0])
