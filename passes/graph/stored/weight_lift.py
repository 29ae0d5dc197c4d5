"""Weights that a graph computes from constants, computed once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from ..constant_reader import ConstantReader
from ..names import FreeNames
from ..queries import is_onnx_op


def lift_weights(model: ir.Model, layers: Collection[str]) -> int:
    """Turn constants behind operators of form into initializers, where layers read them.

    Args:
        model: model to change in place.
        layers: operator types whose inputs are lifted.

    Returns:
        The number of new initializers.
    """
    graph = model.graph
    names, reader = FreeNames(graph), ConstantReader(graph)
    lifted = 0
    for node in list(graph):
        if node.op_type not in layers or not is_onnx_op(node):
            continue
        for index, value in enumerate(node.inputs):
            computed = value is not None and value.producer() is not None
            folded = reader.fold(value) if computed else None
            if folded is not None and folded.graph is graph:
                lifted += 1
                _replace(graph, node, index, folded.array, names)
    return lifted


def _replace(graph: ir.Graph, node: ir.Node, index: int, array: Array, names: FreeNames) -> None:
    old = node.inputs[index]
    assert old is not None
    maker = old.producer()
    assert maker is not None
    name = old.name or ""
    if old.is_graph_output():
        name = names.tensor(name)
    value = ir.val(name, const_value=ir.tensor(np.asarray(array, order="C"), name=name))
    graph.register_initializer(value)
    if old.is_graph_output():
        node.replace_input_with(index, value)
    else:
        old.replace_all_uses_with(value)
        _remove(graph, maker)


def _remove(graph: ir.Graph, node: ir.Node) -> None:
    """Remove an operator, and those and the constants that only it needed."""
    inputs = list(node.inputs)  # which a removed node loses
    graph.remove(node, safe=True)
    for value in inputs:
        if value is None or value.uses() or value.is_graph_output():
            continue
        before = value.producer()
        if before is not None and before.graph is graph:
            _remove(graph, before)
        elif not value.is_graph_input():
            graph.initializers.pop(value.name or "", None)
