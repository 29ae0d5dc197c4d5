"""Conversion of float32 nodes to float16, with Casts between regions of the two types."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
import onnx_ir as ir

from trimtab.core.graphs import subgraphs_of
from trimtab.core.ort.int8_share import FLOAT_OPS

from ..edit import add_initializer, remove_unused_initializers
from ..names import fresh_name
from ..queries import const, is_float, is_onnx_op
from ..shapes import output_types

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
    if any(True for _ in subgraphs_of(node)):
        return "hands float32 to its subgraphs; the nodes inside are converted"
    if not is_onnx_op(node):
        return f"is of domain {node.domain}, whose types are unknown"
    if node.op_type in _OWN_TYPE:
        return "has an output type of its own"
    if why := _refused_by_onnxruntime(node):
        return why
    values = [v for v in (*node.inputs, *node.outputs) if v is not None and v.const_value is None]
    if not all(isinstance(value.type, ir.TensorType) for value in values if value.name):
        return "has a value of unknown type, or a sequence"
    takes = any(takes_half(node, i, opset) for i in _floats(node)) or node.op_type in _TYPED
    return None if takes and _gives_half(node) else "does not support float16"


def float32_reason(node: ir.Node, opset: int) -> str | None:
    """Return the reason why a node must stay float32 whatever its values, None where it need not.

    Beside what is unsupported that is a weight too large for float16.
    """
    why = unsupported_reason(node, opset) if computes_float32(node) else None
    largest = max((_largest(value) for value in node.inputs), default=0.0)
    if why is None and largest > LARGEST_FLOAT16:
        return f"has a weight of {largest:.3g}, and float16 ends at {LARGEST_FLOAT16:.0f}"
    return why


def _largest(value: ir.Value | None) -> float:
    array = const(value) if is_float(value) else None
    return 0.0 if array is None else float(np.abs(array).max(initial=0.0))


def _refused_by_onnxruntime(node: ir.Node) -> str:
    """Return the reason where onnxruntime's CPU fails on a node in float16; "" where it does not.

    It fuses a Transpose that moves the first axis away into the product behind it, and dies of
    SIGSEGV where that is float16 (1.32.0).
    """
    if node.op_type in {"ScatterElements", "ScatterND"}:
        reduction = node.attributes.get_string("reduction", "none")
        return "" if reduction == "none" else f"has no float16 kernel that reduces by {reduction}"
    axes = node.attributes.get_ints("perm", ()) if node.op_type == "Transpose" else ()
    if len(axes) > 2 and axes[0] != 0 and _is_factor(node.outputs[0]):
        return "onnxruntime fails to load a float16 product of it"
    return ""


def _is_factor(value: ir.Value) -> bool:
    """Return whether a MatMul reads a value, be it through Identity."""
    readers = [use.node for use in value.uses()]
    return any(
        n.op_type == "MatMul" or (n.op_type == "Identity" and _is_factor(n.outputs[0]))
        for n in readers
    )


def _gives_half(node: ir.Node) -> bool:
    """Return whether all float32 outputs may be float16 by the operator's schema."""
    floats = [index for index, value in enumerate(node.outputs) if is_float(value)]
    return all("tensor(float16)" in output_types(node, index) for index in floats)


def computes_float32(node: ir.Node) -> bool:
    """Return whether a node computes float32 values."""
    return any(is_float(value) for value in node.outputs)


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
    """Return the nodes without connected groups that contain no product: they gain nothing.

    A group ends where a subgraph begins, since tensors are float32 there.
    """
    kept: set[ir.Node] = set()
    waiting = set(half)
    while waiting:
        group, front = set(), [next(iter(waiting))]
        graph = front[0].graph
        while front:
            node = front.pop()
            if node not in waiting or node.graph is not graph:
                continue
            waiting.discard(node)
            group.add(node)
            front += [m for v in node.inputs if v is not None and (m := v.producer()) in waiting]
            front += [u.node for v in node.outputs for u in v.uses() if u.node in waiting]
        if any(node.op_type in FLOAT_OPS for node in group):
            kept |= group
    return kept


class Converter:
    """Converter of some nodes of a graph and its subgraphs, in place.

    Tensors that a subgraph captures, takes or gives stay float32.
    """

    def __init__(self, graph: ir.Graph, half: Collection[ir.Node], opset: int) -> None:
        self.graph, self.half, self.opset = graph, half, opset
        self.as_half: dict[tuple[ir.Graph | None, ir.Value], ir.Value] = {}
        #: float16 values by the float32 ones that Casts make of them.
        self.half_of: dict[ir.Value, ir.Value] = {}
        self.casts = 0

    def convert(self) -> int:
        """Convert and return the number of Casts."""
        if not self.half:
            return 0
        # An outer graph first: a subgraph that captures its results then finds both types.
        for graph in (self.graph, *self.graph.subgraphs()):
            self._convert_graph([node for node in graph if node in self.half])
        remove_unused_initializers(self.graph)
        return self.casts

    def _convert_graph(self, nodes: list[ir.Node]) -> None:
        for node in nodes:
            for index in _floats(node) if node.op_type not in _TYPED else ():
                value = node.inputs[index]
                if value is not None and takes_half(node, index, self.opset):
                    node.replace_input_with(index, self._as_half(value, node))
        for node in nodes:
            if node.op_type == "Cast":
                node.attributes["to"] = ir.AttrInt64("to", int(_HALF))
            for value in node.outputs:
                if value.name and is_float(value):
                    self._convert_output(value, node)

    def _reads_half(self, node: ir.Node, index: int, graph: ir.Graph | None) -> bool:
        """Return whether a node of the graph reads float16 there; a Cast reads any type."""
        takes = node.op_type in _TYPED or takes_half(node, index, self.opset)
        return takes and node in self.half and node.graph is graph

    def _as_half(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """Return the float16 value that replaces an input of a float16 node."""
        maker = value.producer()
        if maker in self.half and maker is not None and maker.graph is reader.graph:
            return value  # will be converted itself
        if value in self.half_of:
            return self.half_of[value]
        constant = const(value)
        place = value.graph if constant is not None else reader.graph
        if (place, value) not in self.as_half:
            if constant is not None and place is not None:
                half = constant.astype(np.float16)
                made = add_initializer(place, f"{value.name}_half", half)
            else:
                made = self._cast(value, _HALF, maker, reader.graph)
            self.as_half[place, value] = made
        return self.as_half[place, value]

    def _convert_output(self, value: ir.Value, node: ir.Node) -> None:
        """Convert an output; float32 readers, subgraphs and graph outputs get a Cast of it."""
        readers = [(n, i) for n, i in value.uses() if not self._reads_half(n, i, node.graph)]
        was_output, name = value.is_graph_output(), str(value.name)
        value.type = ir.TensorType(_HALF)  # a clone shares the old type with its source
        if not readers and not was_output:
            return
        if was_output:
            value.name = self._fresh(f"{name}_half")
        float_value = self._cast(value, _FLOAT, node, node.graph)
        self.half_of[float_value] = value
        for reader, index in readers:
            reader.replace_input_with(index, float_value)
        if was_output and node.graph is not None:
            outputs = node.graph.outputs
            for place in [i for i, given in enumerate(outputs) if given is value]:
                outputs[place] = float_value
            float_value.name = name

    def _cast(
        self, value: ir.Value, to: ir.DataType, after: ir.Node | None, graph: ir.Graph | None
    ) -> ir.Value:
        """Add a Cast behind a node, or at the beginning of a graph that captures the value."""
        assert graph is not None
        self.casts += 1
        name = self._fresh(f"{value.name}_to_{to.name.lower()}")
        result = ir.val(self._fresh(f"{name}_out"), to, value.shape)
        node = ir.node("Cast", [value], {"to": int(to)}, outputs=[result], name=name)
        if after is not None and after.graph is graph:
            graph.insert_after(after, node)
        else:
            graph.insert_before(graph[0], node)
        return result

    def _fresh(self, name: str) -> str:
        return fresh_name(self.graph, name)
