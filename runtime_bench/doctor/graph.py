"""Queries of a running graph: its int8 values, and the float islands between them.

onnxruntime saves the graph that it runs without types, so they are derived from the operators: the
output of DequantizeLinear is float, that of QuantizeLinear or a QLinear operator is int8, and an
operator that only moves values keeps their type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx_ir as ir

from trimtab.core.ort.int8_share import INT8_OPS, QDQ_OPS

#: Operators with int8 inputs and float outputs.
TO_FLOAT = frozenset(
    {
        "ConvIntegerToFloat",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
    }
)
#: Operators whose output is int8 (or int32) for any input.
TO_INT8 = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})
#: Operators that onnxruntime inserts to change the layout of tensors.
REORDERS = frozenset({"ReorderInput", "ReorderOutput"})
#: Suffixes that onnxruntime appends to the name of a node that it copied or changed.
_SUFFIX = re.compile(r"(_token_\d+|/duplicated|_nchwc|_transformed)+$")


def original_name(name: str) -> str:
    """Return the name that a node of the running graph had in the file."""
    return _SUFFIX.sub("", name)


def key_of(node: ir.Node) -> str:
    """Return a key of a node in all running graphs of one file: its name there, or its output."""
    return original_name(node.name or "") or f"({node.op_type} -> {node.outputs[0].name})"


def makes_int8(node: ir.Node) -> bool:
    """Return whether a node has an int8 kernel."""
    return node.op_type in INT8_OPS or node.op_type.startswith("QLinear")


def is_constant(value: ir.Value | None) -> bool:
    """Return whether a value is constant: an initializer, or the output of a Constant node."""
    if value is None:
        return False
    producer = value.producer()
    if producer is not None:
        return producer.op_type == "Constant"
    return value.const_value is not None or value.is_initializer()


def dequantized_by(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that a value comes from; None if it has another source."""
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def float_values(graph: ir.Graph) -> set[ir.Value]:
    """Find the float values that are computed while the model runs."""
    floating = {value for value in graph.inputs if _may_be_float(value)}
    for node in graph:
        if node.op_type == "DequantizeLinear":
            made = not is_constant(node.inputs[0])
        elif node.op_type in TO_INT8 or node.op_type.startswith("QLinear"):
            made = False
        elif node.op_type == "QGemm":
            made = len(node.inputs) < 9 or node.inputs[8] is None  # no scale of the output
        elif node.op_type in {"Shape", "Size", "ArgMax", "ArgMin", "NonZero", "Constant"}:
            made = False
        else:
            made = node.op_type in TO_FLOAT or any(i in floating for i in node.inputs if i)
        if made:
            floating |= {v for v in node.outputs if _may_be_float(v)}
    return floating


def _may_be_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


@dataclass(frozen=True)
class Island:
    """Connected float nodes, and the conversions around them.

    Attributes:
        nodes: nodes in graph order.
        enters: conversions of int8 activations to float before it.
        leaves: conversions to int8 after it.
        reaches_input: true if it also reads float from the graph's inputs.
        reaches_output: true if it also writes float to the graph's outputs.
    """

    nodes: tuple[ir.Node, ...]
    enters: tuple[ir.Node, ...]
    leaves: tuple[ir.Node, ...]
    reaches_input: bool
    reaches_output: bool

    @property
    def between(self) -> bool:
        """True if int8 comes in and int8 goes out."""
        return bool(self.enters and self.leaves)

    @property
    def touches_int8(self) -> bool:
        """True if int8 comes in or goes out."""
        return bool(self.enters or self.leaves)


def islands(graph: ir.Graph) -> list[Island]:
    """Find the connected groups of float nodes, in graph order."""
    floating = float_values(graph)
    inside = [n for n in graph if _computes_in_float(n, floating)]
    group = {node: node for node in inside}

    def root(node: ir.Node) -> ir.Node:
        while group[node] is not node:
            group[node] = group[group[node]]
            node = group[node]
        return node

    for node in inside:
        for value in node.inputs:
            producer = value.producer() if value is not None and value in floating else None
            if producer in group:
                group[root(node)] = root(producer)
    members: dict[ir.Node, list[ir.Node]] = {}
    for node in inside:
        members.setdefault(root(node), []).append(node)
    found = [_island(nodes, floating) for nodes in members.values()]
    order = {node: i for i, node in enumerate(inside)}
    return sorted(found, key=lambda island: order[island.nodes[0]])


def _computes_in_float(node: ir.Node, floating: set[ir.Value]) -> bool:
    if node.op_type in QDQ_OPS or node.op_type in REORDERS or makes_int8(node):
        return False
    return any(value in floating for value in node.inputs if value is not None)


def _island(nodes: list[ir.Node], floating: set[ir.Value]) -> Island:
    enters: dict[ir.Node, None] = {}
    leaves: dict[ir.Node, None] = {}
    reaches_input = reaches_output = False
    for node in nodes:
        for value in node.inputs:
            if value is None or value not in floating:
                continue
            producer = value.producer()
            if producer is None:
                reaches_input = True
            elif producer.op_type == "DequantizeLinear":
                enters[producer] = None
        for value in node.outputs:
            reaches_output |= value.is_graph_output()
            leaves |= {u: None for u in value.consumers() if u.op_type == "QuantizeLinear"}
    return Island(tuple(nodes), tuple(enters), tuple(leaves), reaches_input, reaches_output)
