"""Weights of a graph that may be pruned, with the axes that their operators read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.errors import unknown

from ..declined import Declined
from ..patterns import matching
from ..queries import attr, const, input_at, is_onnx_op, node_label, users

#: Operators with prunable weights, and the inputs that these may be.
WEIGHT_INPUTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1, 0)}


@dataclass(frozen=True)
class Layout:
    """Axes of a weight as its operator reads them.

    Attributes:
        outputs: axis of the output channels.
        inputs: axis of the input channels, which is summed over.
        output_run: output channels in one group of the operator.
        input_run: input channels in one group; groups of weights must not span two.
    """

    outputs: int
    inputs: int
    output_run: int
    input_run: int


@dataclass(frozen=True)
class Weight:
    """Initializer that may be pruned, shared or not.

    Attributes:
        value: the initializer.
        layout: axes as all of its operators read them.
        nodes: names of these operators.
    """

    value: ir.Value
    layout: Layout
    nodes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the initializer."""
        return str(self.value.name)

    def array(self) -> NDArray[np.generic]:
        """Return its array; do not write to it, another model may share it."""
        assert self.value.const_value is not None
        return self.value.const_value.numpy()


def find_weights(
    model: ir.Model, ops: Sequence[str], include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[Weight], list[Declined]]:
    """Return the prunable weights, in order of first use, and what was left alone.

    Raises:
        OptionError: a pattern that matches no node of these operators.
    """
    nodes = [n for n in model.graph.all_nodes() if n.op_type in ops and is_onnx_op(n)]
    chosen = _choose([node_label(n) for n in nodes], include, exclude)
    values: dict[ir.Value, None] = {}
    declined: list[Declined] = []
    for node in nodes:
        if node_label(node) not in chosen:
            continue
        value, reason = _weight_of(node)
        if value is not None:
            values[value] = None
        elif reason:
            declined.append(Declined(node_label(node), reason))
    weights = []
    for value in values:
        found = _describe(value, ops, chosen)
        if isinstance(found, Weight):
            weights.append(found)
        else:
            declined.append(Declined(str(value.name), found))
    return weights, declined


def float_elements(model: ir.Model) -> Counter[ir.DataType]:
    """Return the number of elements of all floating-point weights by type, subgraphs included."""
    found: Counter[ir.DataType] = Counter()
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype.is_floating_point():
                found[tensor.dtype] += tensor.size
    return found


def _choose(names: list[str], include: Sequence[str], exclude: Sequence[str]) -> set[str]:
    for pattern in (*include, *exclude):
        if not matching(names, pattern):
            raise unknown("node with weights", pattern, names)
    kept = {n for pattern in include or ("*",) for n in matching(names, pattern)}
    return kept - {n for pattern in exclude for n in matching(names, pattern)}


def _weight_of(node: ir.Node) -> tuple[ir.Value | None, str]:
    """Return the initializer that is the node's weight, or the reason ("" for activations).

    A Cast from a smaller float is looked through: its source is the weight.
    """
    for index in WEIGHT_INPUTS[node.op_type]:
        value = input_at(node, index)
        if value is None:
            continue
        maker = value.producer()
        source = maker.inputs[0] if _widens(maker) and maker is not None else value
        if const(source) is not None:
            return source, ""
        if maker is None or not any(const(v) is not None for v in maker.inputs[:1]):
            continue
        if maker.op_type == "DequantizeLinear":
            return None, "its weight is quantized already; prune before quantizing"
        readers = [u for v in maker.inputs[:1] if v for u in users(v) if u is not maker]
        if readers:
            what = f"{readers[0].op_type} {node_label(readers[0])!r}"
            return None, f"its weight goes through {maker.op_type}, and {what} reads it as it is"
        return None, f"its weight is computed by {maker.op_type}; simplify first"
    return None, ""


def _widens(node: ir.Node | None) -> bool:
    """Return whether a node is a Cast that only operators read, of 16-bit floats most often."""
    return (
        node is not None
        and is_onnx_op(node)
        and node.op_type == "Cast"
        and not (node.outputs[0].is_graph_output())
    )


def _readers(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Return the nodes that read a weight, and at which input, Casts looked through."""
    found: list[tuple[ir.Node, int]] = []
    for use in value.uses():
        if _widens(use.node):
            found += _readers(use.node.outputs[0])
        else:
            found.append((use.node, use.idx))
    return found


def _describe(value: ir.Value, ops: Sequence[str], chosen: set[str]) -> Weight | str:
    """Return the weight with the layout of all its users, or why it is left alone."""
    tensor = value.const_value
    assert tensor is not None
    floating = tensor.dtype.is_floating_point() and tensor.dtype.itemsize > 1
    if value.is_graph_output() or not floating:
        return "it is a graph output as well" if floating else f"is {tensor.dtype.name.lower()}"
    layouts, nodes = set(), []
    for node, index in _readers(value):
        if node.op_type not in ops or index not in WEIGHT_INPUTS[node.op_type]:
            return f"{node.op_type} {node_label(node)!r} reads it as well"
        if node_label(node) not in chosen:
            return f"{node_label(node)!r}, which is left out, shares it"
        layout = _layout(node, index, tuple(tensor.shape.numpy()))
        if isinstance(layout, str):
            return layout
        layouts.add(layout)
        nodes.append(node_label(node))
    if len(layouts) > 1:
        return "the operators that share it read it along different axes"
    return Weight(value, layouts.pop(), tuple(nodes))


def _layout(node: ir.Node, index: int, shape: tuple[int, ...]) -> Layout | str:
    rank = len(shape)
    if rank < 2:
        return f"it is a vector of {shape}"
    if node.op_type == "Conv":  # (outputs, inputs / groups, kernel)
        return Layout(0, 1, shape[0] // attr(node, "group", 1), shape[1])
    if node.op_type == "ConvTranspose":  # (inputs, outputs / groups, kernel)
        return Layout(1, 0, shape[1], shape[0] // attr(node, "group", 1))
    first = (node.op_type == "Gemm" and attr(node, "transB", 0) == 1) or index == 0
    outputs, inputs = (rank - 2, rank - 1) if first else (rank - 1, rank - 2)
    return Layout(outputs, inputs, shape[outputs], shape[inputs])
