"""Gemm(x, w, b) as Add(MatMul(x, w), b), for methods that handle MatMul only."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .edit import add_initializer
from .queries import attr, input_at


def gemms_to_products(graph: ir.Graph) -> int:
    """Rewrite each plain Gemm with a constant weight in place; return the number of them."""
    plain = [node for node in graph if node.op_type == "Gemm" and _is_plain(node)]
    for node in plain:
        _rewrite(graph, node)
    return len(plain)


def _is_plain(node: ir.Node) -> bool:
    factors = [attr(node, "alpha", 1.0), attr(node, "beta", 1.0)]
    weight = node.inputs[1]
    constant = weight is not None and weight.const_value is not None
    return factors == [1.0, 1.0] and constant and not attr(node, "transA", 0)


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    weight, made = node.inputs[1], node.outputs[0]
    assert weight is not None
    assert weight.const_value is not None
    if attr(node, "transB", 0):
        array = np.ascontiguousarray(weight.const_value.numpy().T)
        name = f"{weight.name}_transposed"
        weight = graph.initializers.get(name) or add_initializer(graph, name, array)
    product = ir.node("MatMul", [node.inputs[0], weight], name=node.name)
    nodes, last = [product], product
    bias = input_at(node, 2)
    if bias is not None:
        product.outputs[0].name = f"{made.name}_product"
        product.outputs[0].type, product.outputs[0].shape = made.type, made.shape
        last = ir.node("Add", [product.outputs[0], bias], name=f"{node.name}_bias")
        nodes.append(last)
    graph.insert_before(node, nodes)
    old, old_name = node.inputs[1], made.name
    last.outputs[0].type, last.outputs[0].shape = made.type, made.shape
    made.replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    last.outputs[0].name = old_name
    if old is not None and not old.uses() and not old.is_graph_input():
        graph.initializers.pop(old.name or "", None)
