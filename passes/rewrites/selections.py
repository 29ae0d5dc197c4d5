"""Parts of a value: Split, Slices, Gather with constant indices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from ..graph.queries import attr, const, dims, input_at, ints, opset, producer, rank, users_beside
from .rule import Found, Make, Writer, rewrite_rule
from .shortcuts import FAR, slice_of


def split_sizes(split: ir.Node, size: int | None = None) -> tuple[int, list[int]] | None:
    """Return the axis and the sizes of the parts; None where they are not known.

    Args:
        split: the Split.
        size: size of its axis, where the caller knows it.
    """
    known = dims(split.inputs[0])
    if known is None:
        return None
    axis = attr(split, "axis", 0) % len(known)
    parts = list(attr(split, "split", ())) or (ints(input_at(split, 1)))
    size = size or known[axis]
    if parts:
        return axis, parts
    count = len(split.outputs)
    if size is None or size % count:
        return None
    return axis, [size // count] * count


def pieces(array: Array | None, sizes: Sequence[int]) -> list[Array] | list[None]:
    """Return an array cut along its first axis into these sizes; as many None if there is none."""
    return [None] * len(sizes) if array is None else np.split(array, np.cumsum(sizes)[:-1])


@rewrite_rule("slices-from-split", at="Split", back="split-from-slices", min_opset=10)
def slices_from_split(split: ir.Node) -> Found:
    """Write a Split as one Slice for each part."""
    found = split_sizes(split)
    if found is None:
        return "the sizes of its parts are not known"
    axis, sizes = found
    ends = np.cumsum(sizes)

    def make(w: Writer) -> dict[ir.Value, ir.Value]:
        axes = w.weight(np.array([axis], np.int64), "axis")
        made = {}
        for part, size, end in zip(split.outputs, sizes, ends, strict=True):
            bounds = [w.weight(np.array([v], np.int64), "bound") for v in (end - size, end)]
            made[part] = w.op("Slice", split.inputs[0], *bounds, axes, like=part)
        return made

    return make


@rewrite_rule("split-from-slices", at="Slice", back="slices-from-split", min_opset=13)
def split_from_slices(first: ir.Node) -> Found:
    """Write Slices that divide a value along one axis as one Split."""
    source = first.inputs[0]
    bounds = _one_axis(first)
    if source is None or bounds is None or bounds[1] != 0:
        return None
    axis = bounds[0]
    parts: dict[tuple[int, int], list[ir.Node]] = {}
    for node in users_beside(first, source):
        other = _one_axis(node) if node.op_type == "Slice" else None
        if other is not None and other[0] == axis:
            parts.setdefault(other[1:], []).append(node)
    size = (dims(source) or ())[axis]
    order = sorted(parts)
    if len(order) < 2:
        return None
    ends = [min(end, size) if size is not None else end for _, end in order]
    if any(a != end for (a, _), end in zip(order[1:], ends[:-1], strict=True)) or ends[-1] != size:
        return "its slices do not share out the whole axis"
    sizes = [end - start for (start, _), end in zip(order, ends, strict=True)]

    def make(w: Writer) -> dict[ir.Value, ir.Value]:
        likes: list[ir.Value | None] = [parts[key][0].outputs[0] for key in order]
        lengths = w.weight(np.array(sizes, np.int64), "sizes")
        results = w.ops("Split", (source, lengths), likes, axis=axis)
        return {
            node.outputs[0]: result
            for key, result in zip(order, results, strict=True)
            for node in parts[key]
        }

    return make


def _one_axis(node: ir.Node) -> tuple[int, int, int] | None:
    """Return (axis, start, end) of a Slice along one axis with step 1 and positive bounds."""
    if node.op_type != "Slice" or rank(node.inputs[0]) is None:
        return None
    cut, reason = slice_of(node)
    if reason or len(cut) != 1:
        return None
    [(axis, (start, end, step))] = cut.items()
    return (axis, start, end) if step == 1 and start >= 0 and end > start else None


@rewrite_rule("slice-from-gather", at="Gather", min_opset=13)
def slice_from_gather(gather: ir.Node) -> Found:
    """Write a Gather with one constant index, or with evenly spaced ones, as a Slice."""
    source, known = gather.inputs[0], rank(gather.inputs[0])
    indices = const(gather.inputs[1])
    if source is None or indices is None or known is None or const(source) is not None:
        return None
    if indices.ndim > 1 or not indices.size:
        return "its indices have more than one axis"
    axis = attr(gather, "axis", 0) % known
    listed = [int(i) for i in indices.reshape(-1)]
    steps = {b - a for a, b in itertools.pairwise(listed)}
    if len(steps) > 1 or min(steps, default=1) < 1:
        return "its indices are not evenly spaced"
    if listed[0] < 0 <= listed[-1]:
        return "its indices run over the end"
    return _slice(gather, source, axis, listed, single=indices.ndim == 0)


def _slice(
    gather: ir.Node, source: ir.Value, axis: int, listed: list[int], *, single: bool
) -> Make:
    step = listed[1] - listed[0] if len(listed) > 1 else 1
    end = listed[-1] + 1 or FAR  # the index -1 ends at the end, not at 0

    def make(w: Writer) -> ir.Value:
        values = {"start": listed[0], "end": end, "axis": axis, "step": step}
        bounds = [w.weight(np.array([v], np.int64), n) for n, v in values.items()]
        part = w.op("Slice", source, *bounds, like=None if single else gather.outputs[0])
        if not single:
            return part
        return w.op("Squeeze", part, w.weight(np.array([axis], np.int64), "axes"))

    return make


@rewrite_rule("gather-from-slice", at="Squeeze", back="slice-from-gather", min_opset=13)
def gather_from_slice(squeeze: ir.Node) -> Found:
    """Write a Slice of one element and the Squeeze of its axis as a Gather."""
    cut = producer(squeeze.inputs[0], "Slice")
    if cut is None or opset(squeeze) < 13:
        return None
    bounds, axes = _one_axis(cut), ints(input_at(squeeze, 1))
    if bounds is None or axes is None or bounds[2] != bounds[1] + 1:
        return None
    known = rank(cut.inputs[0]) or 1
    if [a % known for a in axes] != [bounds[0]]:
        return "it squeezes another axis than the one cut"
    index = np.array(bounds[1], np.int64)
    return lambda w: w.op(
        "Gather", cut.inputs[0], w.weight(index, "index"), like=squeeze.outputs[0], axis=bounds[0]
    )
