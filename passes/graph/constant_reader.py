"""Constants behind operators that only move or cast them, as exporters write weights.

PyTorch's export of an LSTM, for one, slices the weight and joins the parts in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trimtab.core.data import Array

from .evaluate_node import evaluate_node
from .queries import is_onnx_op

#: Operators through which constants are read; none makes many values of few.
MOVES = frozenset(
    {
        "Cast",
        "Concat",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
#: Operator set that a graph without any is read in.
_NEWEST = 17


@dataclass(frozen=True)
class Folded:
    """Constant value of a tensor.

    Attributes:
        array: its value; do not write to it.
        graph: the innermost of the graphs that hold what it is made of.
    """

    array: Array
    graph: ir.Graph


class ConstantReader:
    """Reader of constants in a graph and its subgraphs, which captured ones are in scope of."""

    def __init__(self, graph: ir.Graph) -> None:
        self._opset = graph.opset_imports.get("", _NEWEST)
        self._depth = dict(_depths(graph, 0))
        self._moved: set[ir.Value] = set()
        for node in graph.all_nodes():  # what a node reads comes before it
            if self._moves(node):
                self._moved.update(node.outputs)

    def fold(self, value: ir.Value | None) -> Folded | None:
        """Return the constant that a value holds; None where it is computed or a caller's."""
        if value is None or not self.is_constant(value):
            return None
        held = value.const_value
        if value.is_initializer() and held is not None and value.graph is not None:
            return Folded(held.numpy(), value.graph)
        node = value.producer()
        assert node is not None
        tensor = node.attributes.get_tensor("value", None)
        if tensor is not None and isinstance(node.graph, ir.Graph):
            return Folded(tensor.numpy(), node.graph)
        given = [self.fold(source) for source in node.inputs]
        owners = [folded.graph for folded in given if folded is not None]
        owner = max(owners, key=lambda graph: self._depth.get(graph, 0))
        arrays = [None if folded is None else folded.array for folded in given]
        made = evaluate_node(node, arrays, self._opset)
        return Folded(made[node.outputs.index(value)], owner)

    def is_constant(self, value: ir.Value) -> bool:
        """Return whether `fold` finds a constant."""
        if value.is_graph_input():
            return False
        if value.is_initializer():
            return value.const_value is not None
        return value in self._moved

    def _moves(self, node: ir.Node) -> bool:
        """Return whether a node holds a constant, or moves constants."""
        if not is_onnx_op(node):
            return False
        if node.op_type == "Constant":
            return node.attributes.get_tensor("value", None) is not None
        return node.op_type in MOVES and all(s is None or self.is_constant(s) for s in node.inputs)

    def remove_unread(self, graph: ir.Graph) -> None:
        """Remove Constants, and nodes that move constants, where nothing reads them."""
        for part in (graph, *graph.subgraphs()):
            for node in reversed(list(part)):
                if all(map(self.is_constant, node.outputs)) and not any(
                    value.uses() or value.is_graph_output() for value in node.outputs
                ):
                    part.remove(node, safe=True)

    def readers(self, value: ir.Value) -> Iterator[tuple[ir.Node | None, int]]:
        """Yield what reads the initializers behind a constant, through operators that move them.

        Yields:
            The node and the index of its input; None for an output of a graph.
        """
        for root in self._roots(value):
            yield from self._readers(root)

    def _roots(self, value: ir.Value) -> Iterator[ir.Value]:
        node = value.producer()
        if node is None or node.op_type == "Constant":
            yield value
            return
        for source in node.inputs:
            if source is not None:
                yield from self._roots(source)

    def _readers(self, value: ir.Value) -> Iterator[tuple[ir.Node | None, int]]:
        if value.is_graph_output():
            yield None, 0
        for node, index in value.uses():
            if all(map(self.is_constant, node.outputs)):
                for output in node.outputs:
                    yield from self._readers(output)
            else:
                yield node, index


def _depths(graph: ir.Graph, depth: int) -> Iterator[tuple[ir.Graph, int]]:
    yield graph, depth
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _depths(attribute.as_graph(), depth + 1)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for part in attribute.as_graphs():
                    yield from _depths(part, depth + 1)
