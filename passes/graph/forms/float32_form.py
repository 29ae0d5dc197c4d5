"""Models of float16 or double as models of float32, whose inputs and outputs keep their types.

int8 kernels go with float32: pairs of Q and DQ around float16 are fused from opset 21 on, around
double never. What a cast to float32 loses of a double is far below what int8 loses.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from trimtab.core.graphs import subgraphs_of
from trimtab.core.ort.int8_share import FLOAT_OPS

from ..names import fresh_name
from ..queries import is_onnx_op

_FLOAT = ir.DataType.FLOAT
#: Attributes that name the type of a result.
_TYPES = ("to", "dtype")


def has_products_of(graph: ir.Graph, kind: ir.DataType) -> bool:
    """Return whether a layer has a weight of a type; a constant beside layers says nothing."""
    layers = (node for node in graph.all_nodes() if node.op_type in FLOAT_OPS)
    weights = (value for node in layers for value in node.inputs if value is not None)
    return any(value.const_value is not None and value.dtype == kind for value in weights)


def to_float32(model: ir.Model, kind: ir.DataType) -> bool:
    """Write a model of one float type in float32, in place; return whether it could be.

    It cannot where a sequence holds that type, or a node of another library may need it.

    Args:
        model: model whose constants are initializers.
        kind: float16 or double.
    """
    if not _can_be(model.graph, kind):
        return False
    outside = {v for v in model.graph.inputs if v.name not in model.graph.initializers}
    ends = [index for index, v in enumerate(model.graph.outputs) if v.dtype == kind]
    for graph in (model.graph, *model.graph.subgraphs()):
        _convert_weights(graph, kind)
    for node in model.graph.all_nodes():
        _convert_attributes(node, kind)
    for value in [v for v in _values(model.graph) if v.dtype == kind]:
        if value in outside:
            _cast_input(model.graph, value)
        else:
            value.type = ir.TensorType(_FLOAT)
    for index in ends:
        _cast_output(model.graph, index, kind)
    drop_casts(model.graph, _FLOAT)
    return True


def drop_casts(graph: ir.Graph, kind: ir.DataType) -> None:
    """Remove Casts of a type to itself, in place."""
    for node in list(graph.all_nodes()):
        _drop_cast(node, kind)


def _can_be(graph: ir.Graph, kind: ir.DataType) -> bool:
    """Return whether ONNX's own operators compute with that type alone, outside of sequences."""
    containers = ir.SequenceType | ir.OptionalType
    held = (v.type.elem_type for v in _values(graph) if isinstance(v.type, containers))
    if any(getattr(each, "dtype", None) == kind for each in held):
        return False
    return all(is_onnx_op(node) for node in graph.all_nodes())


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield all values of a graph and of those inside, weights included."""
    yield from (*graph.inputs, *graph.outputs, *graph.initializers.values())
    for node in graph:
        yield from node.outputs
        for inner in subgraphs_of(node):
            yield from _values(inner)


def _convert_weights(graph: ir.Graph, kind: ir.DataType) -> None:
    for value in graph.initializers.values():
        weight = value.const_value
        if weight is not None and weight.dtype == kind:
            array = weight.numpy().astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)


def _convert_attributes(node: ir.Node, kind: ir.DataType) -> None:
    for name in _TYPES:
        if name in node.attributes and node.attributes.get_int(name, 0) == int(kind):
            node.attributes[name] = ir.AttrInt64(name, int(_FLOAT))
    held = node.attributes.get("value")
    if held is not None and held.type == ir.AttributeType.TENSOR:
        tensor = held.as_tensor()
        if tensor.dtype == kind:
            made = ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)
            node.attributes["value"] = ir.AttrTensor("value", made)


def _cast_input(graph: ir.Graph, value: ir.Value) -> None:
    """Let all that reads an input read it as float32."""
    readers = list(value.uses())
    if not readers:
        return
    made = _cast(graph, value, _FLOAT, f"{value.name}_as_float32")
    graph.insert_before(graph[0], made)
    for node, index in readers:
        node.replace_input_with(index, made.outputs[0])


def _cast_output(graph: ir.Graph, index: int, kind: ir.DataType) -> None:
    """Give an output its type and its name again."""
    value = graph.outputs[index]
    if value.is_graph_input() and value.name not in graph.initializers:
        return  # handed through
    name, shape = str(value.name), value.shape
    again = next((u.node for u in value.uses() if u.node.name == f"{name}_cast"), None)
    if again is None:
        made = _cast(graph, value, kind, name)
        made.name = f"{name}_cast"
        value.name = fresh_name(graph, f"{name}_float32")
        made.outputs[0].name, made.outputs[0].shape = name, shape
        graph.append(made)
        again = made
    graph.outputs[index] = again.outputs[0]


def _cast(graph: ir.Graph, value: ir.Value, kind: ir.DataType, name: str) -> ir.Node:
    result = ir.val(fresh_name(graph, name), kind, value.shape)
    return ir.node("Cast", [value], {"to": int(kind)}, outputs=[result], name=f"{name}_cast")


def _drop_cast(node: ir.Node, kind: ir.DataType) -> None:
    """Remove a Cast to the type that its input has."""
    source = node.inputs[0] if node.op_type == "Cast" else None
    result = node.outputs[0]
    if source is None or node.graph is None or not source.dtype == result.dtype == kind:
        return
    ends, name = result.is_graph_output(), result.name
    if ends and (source.producer() is None or source.is_graph_output()):
        return
    if ends and source.graph is not node.graph:
        return
    result.replace_all_uses_with(source, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    if ends:
        source.name = name
