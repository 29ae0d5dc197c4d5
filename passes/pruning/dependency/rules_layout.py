"""Rules of channels for operators that move data and compute nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from ...graph.edit import overwrite, set_input, set_ints
from .records import Axes, ChannelMask, Ids, OpaqueError
from .tracer import Trace


def reshape(t: Trace, node: ir.Node) -> None:
    """Split and merge neighbouring axes in row-major order; rewrite the target shape."""
    x, before, after = t.axes(node, 0), t.shape(node.inputs[0]), t.shape(node.outputs[0])
    result = refactor(t, x, before, after)
    t.set(node.outputs[0], result)
    if node.op_type == "Reshape":
        _fix_target(t, node, result)
    elif node.op_type == "Squeeze":
        _name_squeezed(t, node, before, result)


def expand(t: Trace, node: ir.Node) -> None:
    """Widen axes of length 1, keep the others; rewrite the target shape."""
    x, before, after = t.axes(node, 0), t.shape(node.inputs[0]), t.shape(node.outputs[0])
    padded: Axes = [*[None] * (len(after) - len(before)), *x]
    t.set(node.outputs[0], padded)
    _fix_target(t, node, padded)


def _fix_target(t: Trace, node: ir.Node, result: Axes) -> None:
    """Write the new lengths into a target shape, constant or computed."""
    if all(ids is None for ids in result):
        return
    target = t.constant(node, 1)
    if target is None and "shape" in node.attributes:
        raise OpaqueError("its shape is an attribute, as before opset 5")
    merged = [t.varies(node.outputs[0], a) and ids is not None for a, ids in enumerate(result)]
    if target is None and sum(merged) + (node.op_type != "Reshape" and any(merged)) > 1:
        raise OpaqueError("its channels are merged with an axis of any length")

    def update(model: ir.Model, keep: ChannelMask) -> None:
        if not keep.any(result):
            return
        counts = [0 if ids is None else keep.count(ids) for ids in result]
        if target is None:
            written = [-1 if free else n for n, free in zip(counts, merged, strict=True)]
            overwrite(model, node, 1, [ids is not None for ids in result], written)
            return
        # Entries 0 and -1 follow by themselves.
        rows = zip(target, counts, strict=True)
        set_input(model, node, 1, np.array([c if c > 0 and n > 0 else n for n, c in rows]))

    t.updates.append(update)


def _name_squeezed(t: Trace, node: ir.Node, before: tuple[int, ...], result: Axes) -> None:
    """Name the axes of a Squeeze, which would drop a channel axis too if one channel is left."""
    if "axes" in node.attributes or t.has(node, 1) or all(ids is None for ids in result):
        return
    ones = [a for a, n in enumerate(before) if n == 1]

    def update(model: ir.Model, keep: ChannelMask) -> None:
        if keep.any(result) and t.opset >= 13:
            set_input(model, node, 1, np.array(ones, np.int64))
        elif keep.any(result):
            set_ints(node, "axes", ones)

    t.updates.append(update)


def refactor(t: Trace, x: Axes, before: tuple[int, ...], after: tuple[int, ...]) -> Axes:
    """Return the channel ids of the axes that a row-major reshape makes."""
    result: Axes = [None] * len(after)
    for old, new in segments(before, after):
        prunable = [a for a in old if x[a] is not None]
        if not prunable:
            continue
        if len(old) == len(new) == 1:
            result[new[0]] = x[old[0]]
            continue
        first = max(prunable, key=lambda a: before[a])
        t.pin([x[a] for a in prunable if a != first], "is merged with another axis of channels")
        ids = x[first]
        assert ids is not None
        shape = [before[a] if a == first else 1 for a in old]
        flat = np.broadcast_to(ids.reshape(shape), [before[a] for a in old]).reshape(-1)
        axis, carried = _carry(t, flat, [after[a] for a in new])
        result[new[axis]] = carried
    return result


def segments(
    before: tuple[int, ...], after: tuple[int, ...]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the finest runs of axes on both sides with the same elements; axes of one left out."""
    if 0 in before or 0 in after or np.prod(before) != np.prod(after):
        raise OpaqueError(f"{before} becomes {after}")
    old = [a for a, n in enumerate(before) if n > 1]
    new = [a for a, n in enumerate(after) if n > 1]
    while old:
        left, right = [old.pop(0)], [new.pop(0)]
        a, b = before[left[0]], after[right[0]]
        while a != b:
            if a < b:
                left.append(old.pop(0))
                a *= before[left[-1]]
            else:
                right.append(new.pop(0))
                b *= after[right[-1]]
        yield left, right


def _carry(t: Trace, flat: Ids, sizes: list[int]) -> tuple[int, Ids]:
    """Return the factor of a split that carries the channels, and their ids; others stay whole."""
    table = flat.reshape(sizes)
    for axis in range(len(sizes)):
        rows = np.moveaxis(table, axis, 0).reshape(sizes[axis], -1)
        if (rows == rows[:, :1]).all():
            return axis, rows[:, 0].copy()
    axis = t.choose_factor(flat, len(sizes))
    return axis, t.tie_rows(np.moveaxis(table, axis, 0).reshape(sizes[axis], -1))


def transpose(t: Trace, node: ir.Node) -> None:
    """Pass on the axes in another order."""
    x = t.axes(node, 0)
    order = node.attributes.get_ints("perm", range(len(x))[::-1])
    t.set(node.outputs[0], [x[a] for a in order])


def concat(t: Trace, node: ir.Node) -> None:
    """Join channel ids one after another along the axis; tie them along the others."""
    parts = [t.axes(node, i) for i in range(len(node.inputs))]
    sizes = [t.shape(v) for v in node.inputs]
    rank = len(sizes[0])
    at = node.attributes.get_int("axis", 1) % rank
    result: Axes = []
    for axis in range(rank):
        columns = [part[axis] for part in parts]
        if all(ids is None for ids in columns):
            result.append(None)
        elif axis == at:
            result.append(_join(t, columns, [s[axis] for s in sizes]))
        elif any(ids is None for ids in columns):
            t.pin(columns, "meets an axis that cannot change")
            result.append(None)
        else:
            for other in columns[1:]:
                t.tie(columns[0], other)
            result.append(columns[0])
    t.set(node.outputs[0], result)


def _join(t: Trace, columns: Axes, lengths: list[int]) -> Ids:
    """Join channel ids one after another; a part without any gets pinned ones."""
    joined = [t.fresh(n) if ids is None else ids for ids, n in zip(columns, lengths, strict=True)]
    new = [part for ids, part in zip(columns, joined, strict=True) if ids is None]
    t.pin(new, "is concatenated and cannot change")
    return np.concatenate(joined)


def split(t: Trace, node: ir.Node) -> None:
    """Split the channel ids; write out the lengths of the parts."""
    x = t.axes(node, 0)
    axis = node.attributes.get_int("axis", 0) % len(x)
    ids = x[axis]
    lengths = [t.shape(o)[axis] for o in node.outputs]
    if ids is None:
        for result in node.outputs:
            t.set(result, x)
        return
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    for result, part in zip(node.outputs, parts, strict=True):
        t.set(result, [part if a == axis else other for a, other in enumerate(x)])

    def update(model: ir.Model, keep: ChannelMask) -> None:
        if not keep.changes(ids):
            return
        counts = [keep.count(part) for part in parts]
        if t.opset < 13:
            set_ints(node, "split", counts)
            return
        node.attributes.pop("num_outputs", None)
        set_input(model, node, 1, np.array(counts, np.int64))

    for part in parts:
        if len(part) == 1:  # an axis of one carries no channel ids from here on
            t.pin([part], "is split off alone")
    t.updates.append(update)


def tile(t: Trace, node: ir.Node) -> None:
    """Repeat channel ids."""
    x = t.axes(node, 0)
    repeats = t.constant(node, 1)
    if repeats is None:
        raise OpaqueError("its repeats are computed")
    axes = [ids if ids is None else np.tile(ids, int(n)) for ids, n in zip(x, repeats, strict=True)]
    t.set(node.outputs[0], axes)


def depth_to_space(t: Trace, node: ir.Node) -> None:
    """Tie all b b channels of one output, (N, C b b, H, W) to (N, C, H b, W b)."""
    x = t.axes(node, 0)
    ids, area = x[1], node.attributes.get_int("blocksize", 1) ** 2
    t.pin(x[2:], "meets an axis that cannot change")
    if ids is not None:
        columns = node.attributes.get_string("mode") == "CRD"
        ids = t.tie_rows(ids.reshape(-1, area) if columns else ids.reshape(area, -1).T)
    t.set(node.outputs[0], [x[0], ids, None, None])
    if ids is not None and len(ids) == 1:
        t.pin([ids], "is the only channel")


def space_to_depth(t: Trace, node: ir.Node) -> None:
    """Repeat channel ids, (N, C, H, W) to (N, b b C, H / b, W / b)."""
    x = t.axes(node, 0)
    ids, area = x[1], node.attributes.get_int("blocksize", 1) ** 2
    t.pin(x[2:], "meets an axis that cannot change")
    t.set(node.outputs[0], [x[0], None if ids is None else np.tile(ids, area), None, None])
