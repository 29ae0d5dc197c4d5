"""Graphs as files have them: subgraphs, and repair of what is ill-formed and changes no number.

onnxruntime refuses two nodes of one name from 1.32 on and ran them before; the domain of ONNX's own
operators has two spellings; sizes of axes are impossible. All is put right while a model is read,
and nothing after it asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

#: Second spelling of the domain of ONNX's own operators.
_LONG_DOMAIN = "ai.onnx"


def repair(model: ir.Model) -> None:
    """Give nodes that share a name one each, and spell ONNX's own domain one way; in place."""
    scopes: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for scope in scopes:
        imports = scope.opset_imports
        if _LONG_DOMAIN in imports:
            version = imports.pop(_LONG_DOMAIN)
            imports.setdefault("", version)
        for node in scope.all_nodes():
            if node.domain == _LONG_DOMAIN:
                node.domain = ""
    share_opsets(model)
    unique_node_names(model.graph.all_nodes())


def free_axes(model: ir.Model) -> None:
    """Free the axes that some exporters (Paddle, old CNTK) declare with the sizes -1 or 0.

    Such a size is not valid ONNX, and would count as a fixed one wherever shapes are read.
    """
    values = (*model.graph.inputs, *model.graph.outputs, *_inner_values(model.graph))
    for value in values:
        if value.shape is None or value.const_value is not None:
            continue
        sizes = list(value.shape)
        # An inner tensor may be empty indeed, as a part that Split leaves.
        free = 0 if value.is_graph_input() or value.is_graph_output() else -1
        if any(isinstance(d, int) and d <= free for d in sizes):
            value.shape = ir.Shape([None if isinstance(d, int) and d <= free else d for d in sizes])


def _inner_values(graph: ir.Graph) -> Iterable[ir.Value]:
    return (value for node in graph.all_nodes() for value in node.outputs)


def share_opsets(model: ir.Model) -> None:
    """Give subgraphs the operator sets of the model, which a file states once."""
    for graph in model.graph.subgraphs():
        graph.opset_imports.update(model.graph.opset_imports)


def unique_node_names(nodes: Iterable[ir.Node], *, empty: bool = False) -> None:
    """Rename nodes whose name another has; the first keeps it. Those without one get one if asked.

    Args:
        nodes: nodes of a graph, those of its subgraphs included.
        empty: true where a node without a name gets one.
    """
    taken: set[str] = set()
    clashes: list[ir.Node] = []
    for node in nodes:
        if node.name and node.name not in taken:
            taken.add(node.name)
        elif node.name or empty:
            clashes.append(node)
    for index, node in enumerate(clashes):
        name = base = f"{node.name or node.op_type}_{index}"
        while name in taken:
            name = f"{base}_{len(taken)}"
        taken.add(name)
        node.name = name


def subgraphs_of(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the branches or the body of an If, Loop or Scan, not what is nested in them."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def values_inside(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values that the subgraphs of a node read, those of the outer graph included."""
    for graph in subgraphs_of(node):
        for inner in graph.all_nodes():
            yield from (value for value in inner.inputs if value is not None)
        yield from graph.outputs


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of a constant value; None if it is not constant."""
    if value is None:
        return None
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and "value" in producer.attributes:
        return producer.attributes["value"].as_tensor()
    return value.const_value


def constant_array(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the array of a constant, None of another value."""
    tensor = constant_of(value)
    if value is None or tensor is not None:
        return None if tensor is None else tensor.numpy()
    maker = value.producer()
    held = maker.attributes.values() if maker is not None and maker.op_type == "Constant" else ()
    return next((np.asarray(attribute.value) for attribute in held), None)
