"""Rules of channels for operators that work position by position, normalise, pool or reduce."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from ...graph.edit import overwrite, set_input, set_int
from .records import Axes, ChannelMask, OpaqueError
from .rules_products import broadcast
from .tracer import Trace


def same(t: Trace, node: ir.Node) -> None:
    """Give outputs the channels of the first input: every position is computed by itself."""
    axes = t.axes(node, 0)
    for result in node.outputs:
        t.set(result, axes)


def elementwise(t: Trace, node: ir.Node) -> None:
    """Tie the channels of operands that broadcast against each other."""
    indices = t.present(node)
    operands = [t.axes(node, i) for i in indices]
    result, _ = broadcast(t, operands, [t.shape(node.inputs[i]) for i in indices])
    t.set(node.outputs[0], result)
    if node.op_type in {"Add", "Sub", "Sum"}:
        for index, axes in zip(indices, operands, strict=True):
            if t.constant(node, index) is not None:
                t.operand(node, index, axes)


def batch_norm(t: Trace, node: ir.Node) -> None:
    """Tie X (N, C, ...) and four vectors (C)."""
    if node.attributes.get_int("training_mode", 0) or any(o.uses() for o in node.outputs[1:]):
        raise OpaqueError("it is in training mode")
    _per_channel(t, node, range(1, 5), t.axes(node, 0))


def instance_norm(t: Trace, node: ir.Node) -> None:
    """Tie X (N, C, ...), scale and bias (C); each channel has its own statistics."""
    x = t.axes(node, 0)
    t.pin(x[2:], "its statistics would change")
    _per_channel(t, node, (1, 2), [*x[:2], *[None] * (len(x) - 2)])


def _per_channel(t: Trace, node: ir.Node, indices: Iterable[int], x: Axes) -> None:
    """Tie vectors to axis 1; scale and bias are the first two."""
    for index in indices:
        vector = t.axes(node, index)
        t.tie(vector[0], x[1])
        if index < 3:
            t.operand(node, index, vector)
    t.set(node.outputs[0], x)


def layer_norm(t: Trace, node: ir.Node) -> None:
    """Tie scale and bias to the normalised axes, whose statistics change when channels go."""
    x, size = t.axes(node, 0), t.shape(node.inputs[0])
    first = node.attributes.get_int("axis", -1) % len(x)
    for index in t.present(node, 1):
        axes = t.axes(node, index)
        t.tie_broadcast(axes, t.shape(node.inputs[index]), x)
        t.operand(node, index, axes)
    if any(ids is not None for ids in x[first:]):
        t.inexact.append((node, [ids if a >= first else None for a, ids in enumerate(x)]))
        if any(o.uses() for o in node.outputs[1:]) or any(n == 1 for n in size[first:]):
            t.pin(x[first:], "its statistics are used")
    t.set(node.outputs[0], x)


def group_norm(t: Trace, node: ir.Node) -> None:
    """Let whole groups go, which is exact, or the same positions of each, which is not."""
    x, groups = t.axes(node, 0), node.attributes.get_int("num_groups", 1)
    t.pin(x[2:], "its statistics would change")
    scale, bias = t.axes(node, 1), t.axes(node, 2)
    t.set(node.outputs[0], x)
    if x[1] is None:
        t.pin([scale[0], bias[0]], "normalises channels that cannot change")
        return
    channels = len(x[1])
    by_channel = t.shape(node.inputs[1])[0] == channels and t.opset >= 21
    if not by_channel and groups > 1 and channels > groups:
        raise OpaqueError("a scale for each group")
    for vector in (scale, bias):
        t.tie(vector[0], x[1])
    t.operand(node, 1, scale)
    t.operand(node, 2, bias)
    table = x[1].reshape(groups, -1)
    if groups > 1 and t.choose_factor(x[1], 2 if channels > groups else 1) == 0:
        whole = t.tie_rows(table)
        t.updates.append(lambda _, keep: set_int(node, "num_groups", keep.count(whole)))
        return
    t.tie_rows(table.T)
    t.inexact.append((node, [None, x[1], *[None] * (len(x) - 2)]))


def pool(t: Trace, node: ir.Node) -> None:
    """Pass channels on, (N, C, ...) to (N, C, ...)."""
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise OpaqueError("its indices count all channels")
    x = t.axes(node, 0)
    t.pin(x[2:], "pooling mixes it")
    t.set(node.outputs[0], [*x[:2], *[None] * (len(x) - 2)])


def along_axis(t: Trace, node: ir.Node) -> None:
    """Pin the axis whose positions the operator mixes."""
    x = t.axes(node, 0)
    mixed = _mixed_axes(t, node, len(x))
    t.pin([x[a] for a in mixed], f"{node.op_type} mixes it")
    for index in t.present(node, 1):
        if any(ids is not None for ids in t.axes(node, index)):
            raise OpaqueError("its second input has channels")
    for result in node.outputs:
        t.set(result, [None if a in mixed else ids for a, ids in enumerate(x)])


def _mixed_axes(t: Trace, node: ir.Node, rank: int) -> set[int]:
    if node.op_type in {"Softmax", "LogSoftmax", "Hardmax"} and t.opset < 13:
        return set(range(node.attributes.get_int("axis", 1) % rank, rank))  # before 13 it flattened
    if node.op_type == "CumSum":
        axis = t.constant(node, 1)
        if axis is None:
            raise OpaqueError("its axis is computed")
        return {int(axis.reshape(-1)[0]) % rank}
    if node.op_type == "LRN":
        return {1}
    if node.op_type == "Trilu":
        return {rank - 2, rank - 1}
    return {node.attributes.get_int("axis", -1) % rank}


def reduce(t: Trace, node: ir.Node) -> None:
    """Pin the axes that are reduced and pass on the others."""
    x = t.axes(node, 0)
    if node.op_type in {"ArgMax", "ArgMin"}:
        reduced: list[int] | None = [node.attributes.get_int("axis", 0)]
    else:
        reduced = t.integers(node, 1, "axes")
    if not reduced and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        t.set(node.outputs[0], x)
        return
    gone = {a % len(x) for a in reduced} if reduced else set(range(len(x)))
    t.pin([x[a] for a in gone], f"{node.op_type} reduces it")
    if node.attributes.get_int("keepdims", 1):
        result: Axes = [None if a in gone else ids for a, ids in enumerate(x)]
    else:
        result = [ids for a, ids in enumerate(x) if a not in gone]
    t.set(node.outputs[0], result)


def quantize(t: Trace, node: ir.Node) -> None:
    """Tie scale and zero point of QuantizeLinear and DequantizeLinear to their axis."""
    if node.attributes.get_int("block_size", 0):
        raise OpaqueError("it is quantized in blocks")
    x = t.axes(node, 0)
    axis = node.attributes.get_int("axis", 1)
    for index in t.present(node, 1):
        if len(t.shape(node.inputs[index])) == 1:
            vector = t.axes(node, index)
            if t.shape(node.inputs[index])[0] > 1:
                t.tie(vector[0], x[axis])
    t.set(node.outputs[0], x)


def resize(t: Trace, node: ir.Node) -> None:
    """Keep the channels of axes that keep their length; rewrite the target sizes."""
    if node.attributes.get_string("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise OpaqueError("it crops")
    x = t.axes(node, 0)
    before, after = t.shape(node.inputs[0]), t.shape(node.outputs[0])
    kept: Axes = [ids if a == b else None for ids, a, b in zip(x, before, after, strict=True)]
    t.pin([ids for ids, k in zip(x, kept, strict=True) if k is None], "Resize mixes it")
    t.set(node.outputs[0], kept)
    if not t.has(node, 3) or all(ids is None for ids in kept):
        return
    sizes = t.constant(node, 3)
    named = [a % len(x) for a in node.attributes.get_ints("axes", range(len(x)))]

    def update(model: ir.Model, keep: ChannelMask) -> None:
        axes = [kept[a] for a in named]
        counts = [-1 if ids is None else keep.count(ids) for ids in axes]
        if sizes is None:
            overwrite(model, node, 3, [ids is not None for ids in axes], counts)
        else:
            set_input(model, node, 3, np.where(np.array(counts) < 0, sizes, counts))

    t.updates.append(update)
