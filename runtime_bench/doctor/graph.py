"""Reading a running graph: which values are int8, where float islands lie between them.

onnxruntime saves the graph that it runs without types, so they follow from the operators: what a
DequantizeLinear makes is float, what a QuantizeLinear or a QLinear operator makes is int8, what
only moves values keeps their type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trimtab.core.ort.int8_share import FLOAT_OPS, INT8_OPS, QDQ_OPS

#: Operators that take int8 and give float.
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
#: Operators whose result is int8 (or int32) whatever their inputs are.
TO_INT8 = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})
#: Inserted by onnxruntime to go from one layout of tensors to another.
REORDERS = frozenset({"ReorderInput", "ReorderOutput"})
#: Operators that onnxruntime names after a node that it copied or changed.
_SUFFIX = re.compile(r"(_token_\d+|/duplicated|_nchwc|_transformed)+$")


def original_name(name: str) -> str:
    """The name that a node of the running graph had in the file."""
    return _SUFFIX.sub("", name)


def key_of(node: ir.Node) -> str:
    """What tells a node apart in two running graphs of one file: its name there, or its result."""
    return original_name(node.name or "") or f"({node.op_type} -> {node.outputs[0].name})"


def makes_int8(node: ir.Node) -> bool:
    """Whether an operator works on int8 values with an int8 kernel."""
    return node.op_type in INT8_OPS or node.op_type.startswith("QLinear")


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is a weight: an initializer, or what a Constant node holds."""
    if value is None:
        return False
    producer = value.producer()
    if producer is not None:
        return producer.op_type == "Constant"
    return value.const_value is not None or value.is_initializer()


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of a constant value, None where it is none."""
    if value is None:
        return None
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and "value" in producer.attributes:
        return producer.attributes["value"].as_tensor()
    return value.const_value


def float_values(graph: ir.Graph) -> set[ir.Value]:
    """The float values that are computed while the model runs."""
    floating = {value for value in graph.inputs if value.dtype is None or _is_float(value.dtype)}
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
            floating |= {v for v in node.outputs if v.dtype is None or _is_float(v.dtype)}
    return floating


def _is_float(dtype: ir.DataType) -> bool:
    return bool(dtype.is_floating_point())


@dataclass(frozen=True)
class Island:
    """Float nodes that hand float values to each other, and what lies around them.

    Attributes:
        nodes: in graph order.
        enters: conversions of int8 activations to float before it.
        leaves: conversions to int8 after it.
        reaches_input: it also takes float from the graph's inputs.
        reaches_output: it also gives float to the graph's outputs.
    """

    nodes: tuple[ir.Node, ...]
    enters: tuple[ir.Node, ...]
    leaves: tuple[ir.Node, ...]
    reaches_input: bool
    reaches_output: bool

    @property
    def between(self) -> bool:
        """Whether int8 comes in and int8 goes out."""
        return bool(self.enters and self.leaves)

    @property
    def touches_int8(self) -> bool:
        """Whether int8 comes in or goes out."""
        return bool(self.enters or self.leaves)

    @property
    def has_products(self) -> bool:
        """Whether it multiplies: convolutions, matrix products."""
        return any(node.op_type in FLOAT_OPS for node in self.nodes)


def islands(graph: ir.Graph) -> list[Island]:
    """The connected groups of float nodes, in graph order."""
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
            leaves |= {u: None for u in consumers(value) if u.op_type == "QuantizeLinear"}
    return Island(tuple(nodes), tuple(enters), tuple(leaves), reaches_input, reaches_output)


def consumers(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that read a value."""
    return (usage.node for usage in value.uses())
