"""Stored integers whose errors make up for each other at a layer's output.

Rounding to the nearest leaves each weight its error. Of a layer whose inputs depend on each other,
later weights can take back what earlier ones lost (`gptq.compensated`): with the second moments of
its inputs on a few samples, a layer in 8 bits then loses a tenth or less. Scales lie along the
axis, outputs or inputs, that loses least so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.context import Context
from trimtab.core.data import Array, Batch, Floats, Floats32
from trimtab.core.errors import RunError
from trimtab.core.model import Model

from ...graph.queries import is_onnx_op
from ...graph.stored.stored_weights import LARGEST, Gridded, fitted_scales, scale_axes
from .gptq import compensated, inverse_factor
from .layer_outputs import outputs_in_parts
from .layer_regression import as_columns, from_columns, input_rows
from .scalable_pairs import group_count

#: Output positions of a convolution that are taken from each sample.
POSITIONS = 64
#: Most inputs of an output; the inverse of more moments takes long.
DEEPEST = 2304
#: Most numbers of all second moments at a time.
MOST_MOMENTS = 1 << 26


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer with a constant weight of its own, and second moments of its inputs.

    Attributes:
        node: Conv, Gemm or MatMul.
        weight: its initializer.
        moments: (groups, depth, depth).
    """

    node: ir.Node
    weight: ir.Value
    moments: Floats32


def layers_with_moments(
    model: Model, weights: Sequence[ir.Value], batches: Sequence[Batch], ctx: Context
) -> Iterator[Layer]:
    """Yield the layers whose inputs can be observed, among those that read these weights."""
    waiting = [(node, value) for value in weights if (node := _layer(model, value)) is not None]
    part: list[tuple[ir.Node, ir.Value]] = []
    size = 0
    for node, value in waiting:
        needed = _moment_count(node, value)
        if part and size + needed > MOST_MOMENTS:
            yield from _observed(model, part, batches, ctx)
            part, size = [], 0
        part.append((node, value))
        size += needed
    if part:
        yield from _observed(model, part, batches, ctx)


def rounded_by_error(layer: Layer, array: Floats32, bits: int) -> Gridded | None:
    """Return a weight rounded for its layer's output; None where it has too few elements.

    Args:
        layer: layer that the weight belongs to.
        array: the float weight.
        bits: 8 or 4.
    """
    columns = as_columns(layer.node, array.astype(np.float64))
    best, least = None, np.inf
    for axes in scale_axes(array, bits):
        if axes not in {(0,), (1,)}:
            continue
        scales = fitted_scales(array, axes, bits)
        wide = as_columns(layer.node, np.broadcast_to(scales, array.shape).astype(np.float64))
        integers = _compensate(columns, wide, layer.moments, LARGEST[bits])
        lost = integers * wide - columns
        error = float(np.einsum("gio,gio->", lost, layer.moments @ lost))
        if error < least:
            whole = from_columns(layer.node, integers, array.shape).astype(np.int8)
            best, least = Gridded(np.ascontiguousarray(whole), scales, bits), error
    return best


@dataclass(frozen=True)
class _Fixed:
    """Integers -largest to largest, moved to begin at 0, of columns in units of their scales."""

    block: int
    middle: int

    @property
    def largest(self) -> int:
        return 2 * self.middle

    def fit(self, rows: Floats) -> tuple[Floats, Floats]:
        shape = (*rows.shape[:-2], rows.shape[-1])
        return np.ones(shape), np.full(shape, float(self.middle))


def _compensate(columns: Floats, scales: Floats, moments: Floats32, largest: int) -> Floats:
    """Return signed integers (groups, depth, outputs) with these scales of the same shape."""
    # Scales along inputs are those of the inputs' moments; the rest belongs to the outputs.
    by_input = scales.mean(axis=2)
    by_output = (scales / by_input[:, :, None]).mean(axis=1, keepdims=True)
    # What weighs most is rounded first, while most others can still make up for it.
    order = np.argsort(-np.einsum("gii->gi", moments) * by_input**2, axis=1)
    factor = inverse_factor(_ordered(moments, order, by_input))
    units = columns / (by_input[:, :, None] * by_output)
    units = np.take_along_axis(units, order[:, :, None], axis=1)
    integers, _, zeros = compensated(units, factor, _Fixed(columns.shape[1], largest))
    found = np.empty_like(integers)
    np.put_along_axis(found, order[:, :, None], integers - zeros, axis=1)
    return found


def _ordered(moments: Floats32, order: NDArray[np.intp], by_input: Floats) -> Floats:
    """Return the moments (groups, depth, depth) of scaled inputs in another order."""
    groups = np.arange(len(moments))[:, None, None]
    found = moments[groups, order[:, :, None], order[:, None]].astype(np.float64)
    scales = np.take_along_axis(by_input, order, axis=1)
    found *= scales[:, :, None]
    found *= scales[:, None]
    return found


def _layer(model: Model, value: ir.Value) -> ir.Node | None:
    """Return the only reader of a weight, where its inputs' moments say what rounding costs."""
    uses = list(value.uses())
    node, index = uses[0] if len(uses) == 1 else (None, 0)
    if node is None or index != 1 or node.graph is not model.graph or not is_onnx_op(node):
        return None
    source, rank = node.inputs[0], len(value.shape or ())
    if source is None or source.is_initializer():
        return None
    plain = node.op_type == "Gemm" and not node.attributes.get_int("transA", 0)
    if not (node.op_type == "Conv" or ((plain or node.op_type == "MatMul") and rank == 2)):
        return None
    return node if _depth(node, value) <= DEEPEST else None


def _depth(node: ir.Node, value: ir.Value) -> int:
    return int(as_columns(node, np.broadcast_to(np.int8(0), _shape(value))).shape[1])


def _shape(value: ir.Value) -> tuple[int, ...]:
    assert value.const_value is not None
    return tuple(value.const_value.shape.numpy())


def _moment_count(node: ir.Node, value: ir.Value) -> int:
    return int(group_count(node) * _depth(node, value) ** 2)


def _observed(
    model: Model,
    layers: Sequence[tuple[ir.Node, ir.Value]],
    batches: Sequence[Batch],
    ctx: Context,
) -> Iterator[Layer]:
    moments = _second_moments(model, layers, batches, ctx)
    for node, value in layers:
        if node in moments:
            yield Layer(node, value, moments.pop(node))  # large, and used once


def _second_moments(
    model: Model,
    layers: Sequence[tuple[ir.Node, ir.Value]],
    batches: Sequence[Batch],
    ctx: Context,
) -> dict[ir.Node, Floats32]:
    """Return the mean of X^T X of each layer's inputs; nothing where they cannot be observed."""
    sums: dict[ir.Node, Floats32] = {}
    counts: dict[ir.Node, int] = {}
    rng = np.random.default_rng(ctx.seed)
    plain = dataclasses.replace(model)
    try:
        for node, value, x in _inputs(plain, layers, batches):
            rows = input_rows(node, _shape(value), x, POSITIONS, rng)
            product = rows.transpose(0, 2, 1) @ rows
            if node in sums:
                sums[node] += product
            else:
                sums[node] = product
            counts[node] = counts.get(node, 0) + rows.shape[1]
    except RunError:
        return {}
    for node in sums:
        sums[node] /= max(counts[node], 1)
    return sums


def _inputs(
    model: Model, layers: Sequence[tuple[ir.Node, ir.Value]], batches: Sequence[Batch]
) -> Iterator[tuple[ir.Node, ir.Value, Floats32]]:
    """Yield each layer's inputs for each batch, in the order of the layers, however they come."""
    sources = {node: str(node.inputs[0].name) for node, _ in layers if node.inputs[0] is not None}
    known: dict[str, Array] = {}
    waiting: list[tuple[ir.Node, ir.Value]] = []
    for arrays in outputs_in_parts(model, list(dict.fromkeys(sources.values())), batches):
        waiting = waiting or list(layers)
        known |= arrays
        while waiting and sources[waiting[0][0]] in known:
            node, value = waiting.pop(0)
            yield node, value, np.asarray(known[sources[node]], np.float32)
        later = {sources[node] for node, _ in waiting}
        known = {name: array for name, array in known.items() if name in later}
