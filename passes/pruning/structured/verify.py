"""Verification of a cut model: it computes the same as the uncut one with channels masked.

In a copy of the original model, everything that belongs to the removed channels is multiplied by
zero: rows of weights that produce them, biases, and columns that read them. That model and the cut
one are the same function, for any numbers, if and only if the dependency graph, the cuts and the
updated shapes are right. Layer and group normalisation are the exception, since their statistics
are those of the channels that stay; the masked copy writes them out over these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Array
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig, build_session, run

from ...base import rounding_error
from ...graph.edit import add_constant
from ...graph.queries import input_at
from ...graph.shapes import infer_shapes
from ...graph.streaming_run import Stream
from ..dependency.graph import DependencyGraph
from ..dependency.records import Axes, ChannelMask
from .remove_rounding import without_rounding

#: Difference that is allowed, more only where rounding alone explains it.
TOLERANCE = 1e-5
#: Most bytes of weights of a model that runs whole.
LARGE_BYTES = 128 << 20
#: Bytes of weights of a larger model that run at a time: onnxruntime makes several copies.
SEGMENT_BYTES = 16 << 20


def verification_error(masked: Model, pruned: Model, *, seed: int = 0, runs: int = 2) -> float:
    """Return the largest difference of any output, relative to its largest magnitude.

    Inputs are random. Quantized activations are compared before they are rounded.
    """
    first, second = (_runner(without_rounding(model)) for model in (masked, pruned))
    worst = 0.0
    for number in range(runs):
        feeds = random_feeds(masked, seed=seed + number, batch=2)
        expected, got = first(feeds), second(feeds)
        worst = max(worst, *(_difference(a, got[name]) for name, a in expected.items()))
    return worst


def allowed_error(masked: Model, *, seed: int = 0) -> float:
    """Return the difference that is allowed: `TOLERANCE`, or what rounding alone may cause."""
    if masked.weight_bytes > LARGE_BYTES:
        return TOLERANCE
    feeds = random_feeds(masked, seed=seed, batch=2)
    return max(TOLERANCE, rounding_error(masked, feeds, _runner(masked)(feeds)))


def _runner(model: Model) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """Return a function that runs a model; a large one in segments, never whole in memory."""
    # Without fusions, which round differently for different widths.
    plain = SessionConfig(level="basic")
    if model.weight_bytes <= LARGE_BYTES:
        session = build_session(model, plain)
        return lambda feeds: run(session, feeds)
    stops = _stops(model)

    def in_segments(feeds: dict[str, Array]) -> dict[str, Array]:
        stream = Stream.start(model, [feeds], plain)
        for stop in stops:
            stream.advance(stop)
        return {spec.name: stream.values[spec.name][0] for spec in model.outputs}

    return in_segments


def _stops(model: Model) -> list[int]:
    """Return the numbers of nodes before which segments end, by the bytes of their weights."""
    nodes, stops, size = list(model.graph), [], 0
    for number, node in enumerate(nodes):
        weights = [v.const_value for v in node.inputs if v is not None]
        size += sum(t.nbytes for t in weights if t is not None)
        if size > SEGMENT_BYTES:
            stops.append(number + 1)
            size = 0
    return [*stops, len(nodes)]


def _difference(expected: Any, got: Any) -> float:
    """Return the difference relative to the largest magnitude, however small that is.

    Texts are equal or not; of a sequence the element that differs most counts.
    """
    if isinstance(expected, list):
        pairs = zip(expected, got, strict=False)
        same = len(expected) == len(got)
        return max((_difference(a, b) for a, b in pairs), default=0.0) if same else float("inf")
    if expected.shape != got.shape:
        return float("inf")
    if expected.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(expected, got) else float("inf")
    a, b = expected.astype(np.float64), got.astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if (np.isfinite(a) != np.isfinite(b)).any():
        return float("inf")
    gap, scale = (float(np.abs(x[both]).max(initial=0.0)) for x in (a - b, a))
    return gap / scale if scale else gap


def mask(model: Model, graph: DependencyGraph, removed: Iterable[int]) -> Model:
    """Return a copy of the model that `graph` was built on in which units are without effect."""
    keep = graph.keep(removed)
    copy = dataclasses.replace(model, lineage=()).clone()
    twin = dict(zip(model.graph, copy.graph, strict=True))
    infer_shapes(copy.ir)  # masks have the types of what they multiply
    for operand in graph.trace.operands:
        if keep.any(operand.axes):
            _zero(copy.ir, twin[operand.node], operand.index, operand.axes, keep)
    for node, axes in graph.trace.inexact:
        if keep.any(axes):
            _write_out(copy.ir, twin[node], axes, keep)
    return dataclasses.replace(copy, name=f"{model.name}, masked")


def _zero(model: ir.Model, node: ir.Node, index: int, axes: Axes, keep: ChannelMask) -> None:
    """Multiply an input of a node by zeros and ones along each axis with channels."""
    value = node.inputs[index]
    assert value is not None
    write = _Writer(model, node, value.dtype or ir.DataType.FLOAT)
    for ones in _masks(axes, keep):
        value = write("Mul", value, write.constant(ones))
    node.replace_input_with(index, value)


def _masks(axes: Axes, keep: ChannelMask) -> list[NDArray[np.bool_]]:
    """Return masks of the axes that lose positions, shaped to broadcast."""
    rank = len(axes)
    return [
        ones.reshape([-1 if a == axis else 1 for a in range(rank)])
        for axis, ones in enumerate(keep.masks(axes))
        if ones is not None
    ]


def _write_out(model: ir.Model, node: ir.Node, axes: Axes, keep: ChannelMask) -> None:
    """Replace a normalisation by its formula with statistics of the kept positions alone."""
    x = node.inputs[0]
    assert x is not None
    write = _Writer(model, node, x.dtype or ir.DataType.FLOAT)
    # Ones of the shape of x, then zeros where channels go: their sum counts those that stay.
    ones = write("Add", write("Mul", x, write.constant(0.0)), write.constant(1.0))
    for part in _masks(axes, keep):
        ones = write("Mul", ones, write.constant(part))
    shape = None
    if node.op_type == "GroupNormalization":
        shape = write("Shape", x)
        rows = write.integers([0, node.attributes.get_int("num_groups", 1), -1])
        x, ones = write("Reshape", x, rows), write("Reshape", ones, rows)
        over = [2]
    else:
        over = list(range(node.attributes.get_int("axis", -1) % len(axes), len(axes)))
    result = _normalised(write, node, (x, ones), over)
    if shape is not None:
        result = write("Reshape", result, shape)
    for index, op in ((1, "Mul"), (2, "Add")):
        vector = input_at(node, index)
        if vector is not None and shape is not None:  # along the channels
            vector = write("Reshape", vector, write.integers([1, -1, *[1] * (len(axes) - 2)]))
        if vector is not None:
            result = write(op, result, vector)
    node.outputs[0].replace_all_uses_with(result)


def _normalised(
    write: _Writer, node: ir.Node, data: tuple[ir.Value, ir.Value], over: list[int]
) -> ir.Value:
    x, ones = data
    axes = write.integers(over)
    count = write("ReduceSum", ones, axes)
    centred = write("Mul", x, ones)
    if node.op_type != "RMSNormalization":
        mean = write("Div", write("ReduceSum", centred, axes), count)
        centred = write("Mul", write("Sub", x, mean), ones)
    variance = write("Div", write("ReduceSum", write("Mul", centred, centred), axes), count)
    epsilon = write.constant(node.attributes.get_float("epsilon", 1e-5))
    return write("Div", centred, write("Sqrt", write("Add", variance, epsilon)))


class _Writer:
    """Writer of nodes in front of a node."""

    def __init__(self, model: ir.Model, before: ir.Node, dtype: ir.DataType) -> None:
        self._model, self._before, self._dtype = model, before, dtype

    def __call__(self, op: str, *inputs: ir.Value) -> ir.Value:
        new_node = ir.node(op, list(inputs))
        new_node.name = f"trimtab_mask_{self._model.graph.num_nodes()}"
        new_node.outputs[0].name = new_node.name
        new_node.outputs[0].dtype = ir.DataType.INT64 if op == "Shape" else self._dtype
        self._model.graph.insert_before(self._before, new_node)
        return new_node.outputs[0]

    def constant(self, value: float | NDArray[np.bool_]) -> ir.Value:
        array = np.asarray(value).astype(self._dtype.numpy())
        return add_constant(self._model, array, "trimtab_mask")

    def integers(self, values: list[int]) -> ir.Value:
        return add_constant(self._model, np.array(values, np.int64), "trimtab_mask")
