"""Conversion of float32 nodes to float16, with Casts between regions of the two types."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
import onnx_ir as ir

from trimtab.core.ort.int8_share import FLOAT_OPS

from ..graph.edit import add_initializer, remove_unused_initializers
from ..graph.queries import is_float, is_onnx_op

#: Largest finite float16.
LARGEST_FLOAT16 = 65504.0
#: Operators whose output type is an attribute.
_TYPED = frozenset({"Cast"})
#: Operators whose output type depends on attributes or defaults; they stay float32.
_OWN_TYPE = frozenset(
    {"Bernoulli", "ConstantOfShape", "EyeLike", "Multinomial", "RandomNormal", "RandomUniform"}
)
_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def unsupported_reason(node: ir.Node, opset: int) -> str | None:
    """Return the reason why a node cannot be float16, None where it can."""
    if any(attribute.type in _SUBGRAPHS for attribute in node.attributes.values()):
        return "contains a subgraph, which is not converted"
    if not is_onnx_op(node):
        return f"is of domain {node.domain}, whose types are unknown"
    if node.op_type in _OWN_TYPE:
        return "has an output type of its own"
    values = [v for v in (*node.inputs, *node.outputs) if v is not None and v.const_value is None]
    if not all(isinstance(value.type, ir.TensorType) for value in values):
        return "has a value of unknown type, or a sequence"
    if node.op_type not in _TYPED and not any(takes_half(node, i, opset) for i in _floats(node)):
        return "does not support float16"
    return None


_SUBGRAPHS = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}


def computes_float32(node: ir.Node) -> bool:
    """Return whether a node computes float32 values."""
    return any(value.dtype == _FLOAT for value in node.outputs)


def _floats(node: ir.Node) -> list[int]:
    """Return the indices of the float32 inputs."""
    return [index for index, value in enumerate(node.inputs) if is_float(value)]


def takes_half(node: ir.Node, index: int, opset: int) -> bool:
    """Return whether an input may be float16 by the operator's schema."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    formal = schema.inputs[min(index, len(schema.inputs) - 1)]
    return "tensor(float16)" in formal.types


def drop_productless_groups(half: set[ir.Node]) -> set[ir.Node]:
    """Return the nodes without connected groups that contain no product: they gain nothing."""
    kept: set[ir.Node] = set()
    waiting = set(half)
    while waiting:
        group, front = set(), [next(iter(waiting))]
        while front:
            node = front.pop()
            if node not in waiting:
                continue
            waiting.discard(node)
            group.add(node)
            front += [m for v in node.inputs if v is not None and (m := v.producer()) in waiting]
            front += [u.node for v in node.outputs for u in v.uses() if u.node in waiting]
        if any(node.op_type in FLOAT_OPS for node in group):
            kept |= group
    return kept


class Converter:
    """Converter of some nodes of a graph, in place."""

    def __init__(self, graph: ir.Graph, half: Collection[ir.Node], opset: int) -> None:
        self.graph, self.half, self.opset = graph, half, opset
        self.as_half: dict[ir.Value, ir.Value] = {}
        self.as_float: dict[ir.Value, ir.Value] = {}
        self.casts = 0

    def convert(self) -> int:
        """Convert and return the number of Casts."""
        if not self.half:
            return 0
        nodes = [node for node in self.graph if node in self.half]
        for node in nodes:
            for index in _floats(node) if node.op_type not in _TYPED else ():
                value = node.inputs[index]
                if value is not None and takes_half(node, index, self.opset):
                    node.replace_input_with(index, self._as_half(value))
        for node in nodes:
            if node.op_type == "Cast":
                node.attributes["to"] = ir.AttrInt64("to", int(_HALF))
            for value in node.outputs:
                if value.dtype == _FLOAT:
                    self._convert_output(value)
        remove_unused_initializers(self.graph)
        return self.casts

    def _reads_half(self, node: ir.Node, index: int) -> bool:
        """Return whether a node reads float16 there; a Cast reads any type."""
        takes = node.op_type in _TYPED or takes_half(node, index, self.opset)
        return takes and node in self.half

    def _as_half(self, value: ir.Value) -> ir.Value:
        """Return the float16 value that replaces an input of a float16 node."""
        source_node = value.producer()
        if source_node in self.half:
            return value  # will be converted itself
        if value not in self.as_half:
            if value.const_value is not None and not value.is_graph_input():
                half = value.const_value.numpy().astype(np.float16)
                self.as_half[value] = add_initializer(self.graph, f"{value.name}_half", half)
            else:
                self.as_half[value] = self._cast(value, _HALF, source_node)
        return self.as_half[value]

    def _convert_output(self, value: ir.Value) -> None:
        """Convert an output; float32 readers, subgraphs and graph outputs get a Cast of it."""
        readers = [(n, i) for n, i in value.uses() if not self._reads_half(n, i)]
        was_output, name = value.is_graph_output(), value.name
        value.type = ir.TensorType(_HALF)  # a clone shares the old type with its source
        if not readers and not was_output:
            return
        if was_output:
            value.name = f"{name}_half"
        float_value = self._cast(value, _FLOAT, value.producer())
        for node, index in readers:
            node.replace_input_with(index, float_value)
        if was_output:
            outputs = self.graph.outputs
            outputs[list(outputs).index(value)] = float_value
            float_value.name = name

    def _cast(self, value: ir.Value, to: ir.DataType, after: ir.Node | None) -> ir.Value:
        self.casts += 1
        name = f"{value.name}_to_{to.name.lower()}"
        result = ir.val(f"{name}_out", to, value.shape)
        node = ir.node("Cast", [value], {"to": int(to)}, outputs=[result], name=name)
        if after is not None:
            self.graph.insert_after(after, node)
        else:
            self.graph.insert_before(self.graph[0], node)
        return result
