"""Shared int8 weights, split into one copy for each node that reads them.

onnxruntime's exact 8-bit kernels (session.x64quantprecision) rewrite a weight where it is used and
refuse the model at its second use (1.32). Only sessions for evaluation are built from such copies.
"""

from __future__ import annotations

import onnx_ir as ir

from ..model import Model

_SIGNED = ir.DataType.INT8


def split_shared_weights(model: Model) -> Model:
    """Return a copy in which no int8 initializer is used twice; the model itself where none is."""
    if not any(_shared(value) for value in _weights(model)):
        return model
    copy = model.clone()
    for value in _weights(copy):
        for node in _dequantizers(value):
            _duplicate(copy.graph, node)
    for value in _weights(copy):  # zero points too, which the new nodes read as well
        for position, (node, index) in enumerate(tuple(value.uses())[1:], 1):
            twin = ir.val(f"{value.name}_use{position}", const_value=value.const_value)
            copy.graph.register_initializer(twin)
            node.replace_input_with(index, twin)
    return copy


def _weights(model: Model) -> list[ir.Value]:
    return [v for v in model.graph.initializers.values() if v.dtype == _SIGNED]


def _dequantizers(value: ir.Value) -> list[ir.Node]:
    return [n for n, i in tuple(value.uses()) if n.op_type == "DequantizeLinear" and i == 0]


def _shared(value: ir.Value) -> bool:
    uses = tuple(value.uses())
    return len(uses) > 1 or any(len(tuple(n.outputs[0].uses())) > 1 for n in _dequantizers(value))


def _duplicate(graph: ir.Graph, node: ir.Node) -> None:
    """Duplicate a DequantizeLinear for each of its readers after the first."""
    for position, (reader, index) in enumerate(tuple(node.outputs[0].uses())[1:], 1):
        twin = ir.node(
            node.op_type,
            list(node.inputs),
            attributes=dict(node.attributes),
            name=f"{node.name}_{position}",
        )
        twin.outputs[0].name = f"{node.outputs[0].name}_{position}"
        graph.insert_after(node, twin)
        reader.replace_input_with(index, twin.outputs[0])
