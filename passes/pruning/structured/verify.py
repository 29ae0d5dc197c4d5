"""The proof that channels were removed rightly: a masked model computes what the cut one does.

In a copy of the model as it was, everything that belongs to the removed channels is multiplied by
zero: rows of weights that make them, biases, and columns that read them. That model and the cut one
are the same function, whatever the numbers, if and only if labels, cuts and rewritten shapes are
right. Layer and group normalisation are the exception, since their statistics run over what is
left; in the masked copy they are written out over the kept channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Array
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, random_feeds, run

from ...graph.edit import add_constant
from ...graph.streaming_run import Stream
from ..dependency.groups import Labels
from ..dependency.parts import Axes, Keep
from ..dependency.rules_products import integer
from .unround import without_rounding

TOLERANCE = 1e-5
#: Weights of a model that runs whole.
LARGE_BYTES = 128 << 20
#: Weights of a larger one that run at a time, or one weight: onnxruntime takes several copies.
STRETCH_BYTES = 16 << 20


def oracle(masked: Model, pruned: Model, *, seed: int = 0, runs: int = 2) -> float:
    """Largest difference of any output, relative to its largest magnitude, on random inputs.

    Activations that are quantized are compared before they are rounded.
    """
    first, second = (_runner(without_rounding(model)) for model in (masked, pruned))
    worst = 0.0
    for number in range(runs):
        feeds = random_feeds(masked, seed=seed + number, batch=2)
        expected, got = first(feeds), second(feeds)
        worst = max(worst, *(_difference(a, got[name]) for name, a in expected.items()))
    return worst


def _runner(model: Model) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """What runs a model; a large one a stretch at a time, so that it never lies in memory whole."""
    # Without fusions, which round differently for different widths.
    plain = SessionConfig(level="basic")
    if model.weight_bytes <= LARGE_BYTES:
        session = build_session(model, plain)
        return lambda feeds: run(session, feeds)
    stops = _stops(model)

    def in_stretches(feeds: dict[str, Array]) -> dict[str, Array]:
        stream = Stream.start(model, [feeds], plain)
        for stop in stops:
            stream.advance(stop)
        return {spec.name: stream.values[spec.name][0] for spec in model.outputs}

    return in_stretches


def _stops(model: Model) -> list[int]:
    """Numbers of nodes after which a stretch ends: where its weights become many."""
    nodes, stops, held = list(model.graph), [], 0
    for number, node in enumerate(nodes):
        weights = [v.const_value for v in node.inputs if v is not None]
        held += sum(t.nbytes for t in weights if t is not None)
        if held > STRETCH_BYTES:
            stops.append(number + 1)
            held = 0
    return [*stops, len(nodes)]


def _difference(expected: Array, got: Array) -> float:
    """Relative to the largest magnitude, however small: a network may well make small numbers."""
    if expected.shape != got.shape:
        return float("inf")
    a, b = expected.astype(np.float64), got.astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if (np.isfinite(a) != np.isfinite(b)).any():
        return float("inf")
    gap, scale = (float(np.abs(x[both]).max(initial=0.0)) for x in (a - b, a))
    return gap / scale if scale else gap


def mask(model: Model, labels: Labels, dead: Iterable[int]) -> Model:
    """A copy of the uncut model in which the classes `dead` count for nothing.

    Args:
        model: whose graph `labels` were traced on; stays as it is.
        labels: its labels.
        dead: the classes.
    """
    keep = labels.keep(dead)
    copy = dataclasses.replace(model, lineage=()).clone()
    twin = dict(zip(model.graph, copy.graph, strict=True))
    for sink in labels.trace.sinks:
        if keep.any(sink.axes):
            _zero(copy.ir, twin[sink.node], sink.index, sink.axes, keep)
    for node, axes in labels.trace.inexact:
        if keep.any(axes):
            _write_out(copy.ir, twin[node], axes, keep)
    return dataclasses.replace(copy, name=f"{model.name}, masked")


def _zero(model: ir.Model, node: ir.Node, index: int, axes: Axes, keep: Keep) -> None:
    """Multiply an input of a node by zeros and ones along each labelled axis."""
    value = node.inputs[index]
    assert value is not None
    write = _Writer(model, node, value.dtype or ir.DataType.FLOAT)
    for ones in _masks(axes, keep):
        value = write("Mul", value, write.constant(ones))
    node.replace_input_with(index, value)


def _masks(axes: Axes, keep: Keep) -> list[NDArray[np.bool_]]:
    """For each axis that loses something, what stays of it, shaped to broadcast."""
    rank = len(axes)
    return [
        keep.mask(ids).reshape([-1 if a == axis else 1 for a in range(rank)])
        for axis, ids in enumerate(axes)
        if ids is not None and keep.changes(ids)
    ]


def _write_out(model: ir.Model, node: ir.Node, axes: Axes, keep: Keep) -> None:
    """Replace a normalisation by its formula with statistics over the kept positions alone."""
    x = node.inputs[0]
    assert x is not None
    write = _Writer(model, node, x.dtype or ir.DataType.FLOAT)
    # Ones of the shape of x, then zeros where channels go: their sum is the number that stays.
    ones = write("Add", write("Mul", x, write.constant(0.0)), write.constant(1.0))
    for part in _masks(axes, keep):
        ones = write("Mul", ones, write.constant(part))
    shape = None
    if node.op_type == "GroupNormalization":
        shape = write("Shape", x)
        rows = write.integers([0, integer(node, "num_groups", 1), -1])
        x, ones = write("Reshape", x, rows), write("Reshape", ones, rows)
        over = [2]
    else:
        over = list(range(integer(node, "axis", -1) % len(axes), len(axes)))
    result = _normalised(write, node, (x, ones), over)
    if shape is not None:
        result = write("Reshape", result, shape)
    spread = [1, -1, *[1] * (len(axes) - 2)] if shape is not None else None
    for index, op in ((1, "Mul"), (2, "Add")):
        given = node.inputs[index] if index < len(node.inputs) else None
        if given is not None:
            given = write("Reshape", given, write.integers(spread)) if spread else given
            result = write(op, result, given)
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
    given = node.attributes.get("epsilon")
    epsilon = write.constant(1e-5 if given is None else given.as_float())
    return write("Div", centred, write("Sqrt", write("Add", variance, epsilon)))


class _Writer:
    """Makes nodes in front of a node."""

    def __init__(self, model: ir.Model, before: ir.Node, dtype: ir.DataType) -> None:
        self._model, self._before, self._dtype = model, before, dtype

    def __call__(self, op: str, *inputs: ir.Value) -> ir.Value:
        made = ir.node(op, list(inputs))
        made.name = f"trimtab_mask_{self._model.graph.num_nodes()}"
        made.outputs[0].name = made.name
        made.outputs[0].dtype = ir.DataType.INT64 if op == "Shape" else self._dtype
        self._model.graph.insert_before(self._before, made)
        return made.outputs[0]

    def constant(self, value: float | NDArray[np.bool_]) -> ir.Value:
        array = np.asarray(value).astype(self._dtype.numpy())
        return add_constant(self._model, array, "trimtab_mask")

    def integers(self, values: list[int]) -> ir.Value:
        return add_constant(self._model, np.array(values, np.int64), "trimtab_mask")
