"""Pairs of layers between which a positive factor per channel can move, with the same function.

The first layer's output channel i is divided by s_i, the second one's input channel i multiplied.
Operators between them must be positively homogeneous, f(x / s) = f(x) / s, and nothing else may
read any tensor on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Floats

from ...graph.declined import Declined
from ...graph.edit import initializer_array
from ...graph.queries import input_at, is_free_to_change, scalar
from ...graph.stored.weight_scales import channel_axis
from ..qdq.int8_operators import PRODUCTS

#: Operators that a positive factor per channel passes through.
HOMOGENEOUS = frozenset(
    {
        "Dropout",
        "Flatten",
        "Identity",
        "LeakyRelu",
        "PRelu",
        "Relu",
    }
)
#: Operators that it passes through where channels are on axis 1, as a convolution's are.
POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})


@dataclass(frozen=True)
class ScalablePair:
    """Two layers and the operators between them.

    Attributes:
        first: layer whose output channels are divided.
        between: operators from the first to the second.
        second: layer whose input channels are multiplied.
    """

    first: ir.Node
    between: tuple[ir.Node, ...]
    second: ir.Node


def find_pairs(graph: ir.Graph, *, clips: bool) -> tuple[list[ScalablePair], list[Declined]]:
    """Find all pairs, in graph order, and the reasons why other layers are not in one.

    The graph is as `prepare_float` leaves it. With `clips` a Clip(0, b) may stand between; it then
    needs a bound per channel.
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
    """Return the pair that begins with this layer, else the reason (empty at the graph's end)."""
    if not _own_weight(first):
        return "its weight is shared, an output, computed, or not float32"
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
    return _mismatch(pair, index) or pair


def _blocks(node: ir.Node, first: ir.Node, *, clips: bool) -> str:
    """Return the reason why a factor does not pass through an operator, empty where it does."""
    if node.graph is not first.graph:
        return "its output is read inside a subgraph"
    if node.op_type in HOMOGENEOUS | POOLS:
        return _moves_channels(node, first)
    if node.op_type == "Clip":
        bound = clip_bound(node)
        if bound is None:
            return "a Clip that does not begin at zero follows it"
        return "" if clips else "a Clip after it has one upper bound for all channels"
    if node.op_type in {"Add", "Min"} and channel_constant(node, first) is not None:
        return ""
    return f"{node.op_type} after it does not scale with its input"


def _moves_channels(node: ir.Node, first: ir.Node) -> str:
    """Return how an operator moves or mixes the channels of a layer, empty where it does not."""
    if node.op_type in POOLS and first.op_type != "Conv":
        return f"{node.op_type} after it mixes its channels, which are on the last axis"
    flat = node.op_type == "Flatten" and node.attributes.get_int("axis", 1) != 1
    return "a Flatten moves its channels" if flat else ""


def _mismatch(pair: ScalablePair, index: int) -> str:
    second, channels = pair.second, out_channels(pair.first)
    if index != 0 or not _own_weight(second):
        return "the weight of its reader is shared, an output, computed, or not float32"
    if second.op_type == "Gemm" and second.attributes.get_int("transA", 0) != 0:
        return "its reader transposes it"
    bias = input_at(pair.first, 2)
    if bias is not None:
        fixed = bias.const_value
        free = fixed is not None and is_free_to_change(bias)
        if fixed is None or not free or fixed.shape.numpy() not in {(channels,)}:
            return "its bias is shared, an output, computed, or not one value for each channel"
    conv = pair.first.op_type == "Conv"
    flat = conv and any(node.op_type == "Flatten" for node in pair.between)
    if conv != (second.op_type == "Conv") and not flat:
        return "its reader has channels on another axis"
    inputs = in_channels(second)
    # Behind a Flatten a channel of a convolution is a row of inputs; that of a product is not.
    if inputs != channels and not (flat and inputs % channels == 0):
        return "its reader has another number of channels"
    return ""


def _own_weight(node: ir.Node) -> bool:
    value = node.inputs[1]
    if value is None or value.const_value is None or not is_free_to_change(value):
        return False
    rank = len(value.const_value.shape)
    plain = rank == 2 if node.op_type != "Conv" else rank >= 3
    return plain and value.dtype == ir.DataType.FLOAT


def clip_bound(node: ir.Node) -> float | None:
    """Return the upper bound of Clip(0, b), None for any other Clip."""
    low, high = (scalar(value) for value in (*node.inputs[1:3], None, None)[:2])
    return high if low == 0 and high is not None and high > 0 else None


def channel_constant(node: ir.Node, first: ir.Node) -> ir.Value | None:
    """Return an Add's or Min's constant of one value for each channel of the first layer."""
    if len(node.inputs) != 2:
        return None
    constants = [v for v in node.inputs if v is not None and v.const_value is not None]
    if len(constants) != 1 or not is_free_to_change(constants[0]):
        return None
    shape, conv = list(initializer_array(constants[0]).shape), first.op_type == "Conv"
    if not shape:
        return None
    wanted = [1] * (len(weight_shape(first)) if conv else len(shape))
    wanted[1 if conv else -1] = out_channels(first)
    # A Conv's constant may leave out the batch axis.
    return constants[0] if shape == wanted or (conv and shape == wanted[1:]) else None


def weight_array(node: ir.Node) -> Floats:
    """Return a layer's weight in double precision."""
    return initializer_array(node.inputs[1]).astype(np.float64)


def out_channels(node: ir.Node) -> int:
    """Return the number of output channels of a layer."""
    axis = channel_axis(node)
    assert axis is not None
    return int(weight_shape(node)[axis])


def in_channels(node: ir.Node) -> int:
    """Return the number of input channels of a layer."""
    shape = weight_shape(node)
    if node.op_type == "Conv":
        return shape[1] * group_count(node)
    return shape[1] if channel_axis(node) == 0 else shape[0]


def weight_shape(node: ir.Node) -> tuple[int, ...]:
    """Return the shape of a layer's weight."""
    return initializer_array(node.inputs[1]).shape


def group_count(node: ir.Node) -> int:
    """Return the number of groups of a convolution, 1 for other layers."""
    return int(node.attributes.get_int("group", 1))


def by_output(node: ir.Node, weight: Floats) -> Floats:
    """Return a view of a weight as (output channels, rest)."""
    axis = channel_axis(node)
    assert axis is not None
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def largest_by_input(node: ir.Node, weight: Floats, channels: int) -> Floats:
    """Return the largest weight magnitude of each input channel: (channels,)."""
    return np.asarray(np.abs(_input_view(node, weight, channels)).max(axis=(1, 3))).reshape(
        channels
    )


def scaled_output(node: ir.Node, weight: Floats, factors: Floats) -> Floats:
    """Return the weight with each output channel multiplied."""
    axis = channel_axis(node)
    assert axis is not None
    shape = [1] * weight.ndim
    shape[axis] = -1
    return weight * factors.reshape(shape)


def scaled_input(node: ir.Node, weight: Floats, factors: Floats) -> Floats:
    """Return the weight with each input channel multiplied."""
    view = _input_view(node, weight, len(factors))
    groups = view.shape[0]
    scaled = view * factors.reshape(groups, 1, len(factors) // groups, 1)
    if node.op_type == "Conv" or channel_axis(node) == 0:
        return scaled.reshape(weight.shape)
    return scaled.reshape(weight.shape[::-1]).T


def _input_view(node: ir.Node, weight: Floats, channels: int) -> Floats:
    """View as (groups, outputs of a group, input channels of a group, values of each)."""
    if node.op_type == "Conv":
        groups = group_count(node)
        return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    rows = weight if channel_axis(node) == 0 else weight.T  # (out, in)
    return rows.reshape(1, rows.shape[0], channels, -1)
