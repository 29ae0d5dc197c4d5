"""Rules of channels for operators that take or add a part of an axis: Slice, Gather, Pad."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...graph.edit import add_constant, set_input, set_ints
from .records import Axes, ChannelMask, Ids, OpaqueError
from .tracer import Trace

#: Operators that a tensor's shape may pass through on its way to another shape.
_SHAPE_OPS = (
    "Abs Add Cast Concat ConstantOfShape Div Equal Expand Gather Greater Identity Less Max Min Mod "
    "Mul Neg Not Range Reshape Resize Shape Slice Split Squeeze Sub Tile Transpose Unsqueeze Where"
)
#: Inputs of a Slice from the second on, attributes before opset 10.
_BOUNDS = ("starts", "ends", "axes", "steps")


def slice_axes(t: Trace, node: ir.Node) -> None:
    """Take a part of the channel ids; rewrite the bounds, or gather indices instead."""
    x, size = t.axes(node, 0), t.shape(node.inputs[0])
    if all(ids is None for ids in x):
        return
    starts, ends, named, steps = (t.integers(node, i, name) for i, name in enumerate(_BOUNDS, 1))
    assert starts is not None
    assert ends is not None
    steps = steps or [1] * len(starts)
    axes = [a % len(x) for a in (range(len(starts)) if named is None else named)]
    result: Axes = list(x)
    windows: dict[int, tuple[Ids, Ids]] = {}
    rows = zip(axes, starts, ends, steps, strict=True)
    for position, (axis, start, end, step) in enumerate(rows):
        ids = x[axis]
        if ids is None:
            continue
        taken = np.arange(size[axis])[_python_slice(start, end, step, size[axis])]
        windows[position] = (ids, taken)
        if len(taken) == size[axis] and step == 1:
            continue
        if not len(taken):
            raise OpaqueError("it takes nothing")
        result[axis] = ids[taken]
        if len(taken) == 1:
            t.pin([ids[taken]], "is taken alone")
    t.set(node.outputs[0], result)
    if windows:
        bounds = (starts, ends, axes, steps)
        t.updates.append(lambda model, keep: _cut_windows(model, keep, node, bounds, windows))


def _python_slice(start: int, end: int, step: int, size: int) -> slice:
    """Return Python's slice for ONNX's bounds, which clamp and count from the end."""
    if step > 0:
        return slice(start, end, step)
    return slice(min(start, size - 1), None if end < -size else end, step)


def _cut_windows(
    model: ir.Model,
    keep: ChannelMask,
    node: ir.Node,
    bounds: Sequence[list[int]],
    windows: dict[int, tuple[Ids, Ids]],
) -> None:
    """Set bounds that take the channels that stay; gather them where no bounds do."""
    if not keep.any([ids for ids, _ in windows.values()]):
        return
    starts, ends, axes, steps = new = [list(values) for values in bounds]
    extra: list[tuple[int, Ids]] = []
    for position, (ids, taken) in windows.items():
        if not keep.changes(ids):
            continue
        left, steps[position] = keep.places(ids, taken), 1
        if (np.diff(left) == 1).all():
            starts[position], ends[position] = int(left[0]), int(left[-1]) + 1
        else:
            starts[position], ends[position] = 0, np.iinfo(np.int64).max
            extra.append((axes[position], left))
    for index, (name, values) in enumerate(zip(_BOUNDS, new, strict=True), 1):
        if "starts" not in node.attributes:
            set_input(model, node, index, np.array(values, np.int64))
        elif name != "steps":  # which came with the inputs, in opset 10
            set_ints(node, name, values)
    for axis, left in extra:
        _gather_after(model, node, axis, left)


def _gather_after(model: ir.Model, node: ir.Node, axis: int, left: Ids) -> None:
    """Gather these positions of an axis from a node's output, for all its users."""
    result = node.outputs[0]
    users = list(result.uses())
    indices = add_constant(model, left.astype(np.int64), f"{result.name}_take{axis}")
    gather_node = ir.node("Gather", [result, indices], {"axis": axis}, name=f"{indices.name}_taken")
    gather_node.outputs[0].name = gather_node.name
    if result.dtype is not None:
        gather_node.outputs[0].dtype = result.dtype
    model.graph.insert_after(node, gather_node)
    for user, index in users:
        user.replace_input_with(index, gather_node.outputs[0])


def gather(t: Trace, node: ir.Node) -> None:
    """Take positions of an axis by constant indices, or rows of an embedding by computed ones."""
    value = node.inputs[0]
    size = t.shape(value)
    axis = node.attributes.get_int("axis", 0) % len(size)
    others = [a for a in range(len(size)) if a != axis]
    indices = t.constant(node, 1)
    x = t.axes(node, 0, only=others if indices is None else None)
    count = len(t.shape(node.inputs[1]))
    ids = x[axis]
    if ids is None or indices is None:
        t.pin([ids], "Gather takes computed positions")
        t.set(node.outputs[0], [*x[:axis], *[None] * count, *x[axis + 1 :]])
        if t.constant(node, 0) is not None:
            t.operand(node, 0, x, weight=True)
        return
    at = np.where(indices < 0, indices + size[axis], indices)
    wanted = ids[at]
    if indices.ndim != 1 or indices.size == 1:
        t.pin([wanted.reshape(-1)], "is taken alone")
        inner: Axes = [None] * count
    else:
        inner = [wanted]
    t.set(node.outputs[0], [*x[:axis], *inner, *x[axis + 1 :]])

    def update(model: ir.Model, keep: ChannelMask) -> None:
        if keep.changes(ids):
            left = keep.places(ids, at)
            set_input(model, node, 1, left.reshape([-1] * count).astype(np.int64))

    t.updates.append(update)


def pad(t: Trace, node: ir.Node) -> None:
    """Give constant channels around ids of their own; pad as many as stay."""
    x, before, after = t.axes(node, 0), t.shape(node.inputs[0]), t.shape(node.outputs[0])
    rank, mode = len(x), node.attributes.get_string("mode", "constant")
    result: Axes = list(x)
    changed = [a for a in range(rank) if before[a] != after[a] and x[a] is not None]
    if not changed:
        t.set(node.outputs[0], result)
        return
    pads = t.integers(node, 1, "pads")
    assert pads is not None
    named = t.integers(node, 3, "axes") if t.opset >= 18 else None
    axes = list(range(rank)) if named is None else [a % rank for a in named]
    sides: dict[int, tuple[Ids, Ids]] = {}
    for axis in changed:
        at = axes.index(axis)
        low, high = pads[at], pads[at + len(axes)]
        if mode != "constant" or min(low, high) < 0:
            t.pin([x[axis]], f"is padded by mode {mode}, or cut")
            result[axis] = None
            continue
        sides[at] = (t.fresh(low), t.fresh(high))
        result[axis] = np.concatenate([sides[at][0], x[axis], sides[at][1]])
    t.set(node.outputs[0], result)

    def update(model: ir.Model, keep: ChannelMask) -> None:
        if not keep.any([ids for pair in sides.values() for ids in pair]):
            return
        new = list(pads)
        for at, (low, high) in sides.items():
            new[at], new[at + len(axes)] = keep.count(low), keep.count(high)
        if "pads" in node.attributes:
            set_ints(node, "pads", new)
        else:
            set_input(model, node, 1, np.array(new, np.int64))

    t.updates.append(update)


def shape_of(t: Trace, node: ir.Node) -> None:
    """Check that lengths are only used as shapes, which follow by themselves."""
    x = t.axes(node, 0)
    if all(ids is None for ids in x):
        return
    waiting, seen = list(node.outputs), set(node.outputs)
    while waiting:
        for user, _ in waiting.pop().uses():
            cast = user.attributes["to"].as_int() if user.op_type == "Cast" else None
            if user.op_type not in _SHAPE_OPS.split() or cast in {1, 10, 11, 16}:
                raise OpaqueError("its length becomes a number of the computation")
            if user.op_type in {"Reshape", "Resize", "Expand", "ConstantOfShape", "Tile"}:
                continue
            new = [o for o in user.outputs if o not in seen]
            seen.update(new)
            waiting.extend(new)
