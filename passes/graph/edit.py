"""Small edits of a graph that several passes make."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from trimtab.core.graphs import unique_node_names

from .names import fresh_name
from .queries import input_at, is_unused


def set_int(node: ir.Node, name: str, value: int) -> None:
    """Set an integer attribute of a node."""
    node.attributes.add(ir.AttrInt64(name, value))


def set_ints(node: ir.Node, name: str, values: list[int]) -> None:
    """Set an attribute of a node to a list of integers."""
    node.attributes.add(ir.AttrInt64s(name, values))


def add_constant(model: ir.Model, array: NDArray[np.generic], like: str) -> ir.Value:
    """Add an initializer from an array, named after another tensor, and return it."""
    return add_tensor(model, ir.Tensor(np.asarray(array, order="C")), like)


def add_tensor(
    model: ir.Model, tensor: ir.Tensor[NDArray[np.generic]] | ir.LazyTensor, like: str
) -> ir.Value:
    """Add an initializer, named after another tensor, and return it."""
    tensor.name = name = fresh_name(model.graph, f"{like}_cut")
    value = ir.val(name, const_value=tensor)
    model.graph.register_initializer(value)
    return value


def add_initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Add an initializer and return it; its name gets underscores as long as a tensor has it."""
    name = fresh_name(graph, name)
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def replace_by_constant(node: ir.Node, array: NDArray[np.generic]) -> ir.Value:
    """Put an initializer in the place of a node of one output, under its name, and return it.

    The output must not be one of the graph.
    """
    graph, old = node.graph, node.outputs[0]
    assert graph is not None
    tensor = ir.tensor(np.asarray(array, order="C"), name=old.name)
    value = ir.val(str(old.name), const_value=tensor)
    old.replace_all_uses_with(value)
    graph.remove(node, safe=True)
    graph.register_initializer(value)
    return value


def replace_output(old: ir.Value, new: ir.Value) -> None:
    """Let readers read another value, which takes the old one's name, type and shape."""
    name = old.name
    new.type, new.shape = old.type or new.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name, new.name = None, name


def initializer_array(value: ir.Value | None) -> NDArray[Any]:
    """Return the array of a value that is known to be constant."""
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def assign_float32(value: ir.Value | None, array: NDArray[Any]) -> None:
    """Give an initializer a new tensor of float32; the old one may be shared with a clone."""
    assert value is not None
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)


def remove_unused_initializers(graph: ir.Graph) -> None:
    """Remove initializers that nothing reads, such as the scales of removed Q/DQ pairs.

    Those of subgraphs go as well.
    """
    for part in (graph, *graph.subgraphs()):
        for name, value in list(part.initializers.items()):
            if is_unused(value) and not value.is_graph_input():
                del part.initializers[name]


def set_input(model: ir.Model, node: ir.Node, index: int, array: NDArray[np.generic]) -> None:
    """Give one node a constant of its own; other users of the old one keep it."""
    old = input_at(node, index)
    value = add_constant(model, array, str(old.name) if old is not None else node.name or "const")
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def overwrite(
    model: ir.Model, node: ir.Node, index: int, where: list[bool], values: list[int]
) -> None:
    """Replace some entries of a shape that is computed at run time."""
    source = node.inputs[index]
    assert source is not None
    name = str(source.name)
    chosen = add_constant(model, np.asarray(where), name)
    given = add_constant(model, np.asarray(values, np.int64), name)
    # Named after the constant, whose name is new: a shape that is cut twice is overwritten twice.
    made = ir.node("Where", [chosen, given, source], name=f"{chosen.name}_shape")
    made.outputs[0].name = made.name
    made.outputs[0].dtype = ir.DataType.INT64
    model.graph.insert_before(node, made)
    node.replace_input_with(index, made.outputs[0])


def drop_weight_inputs(model: ir.Model) -> None:
    """Drop inputs that have an initializer, in place, so that these are constants.

    IR version 3 lists every initializer as an input, which a caller may feed; quantizers and
    fusions would take a weight for an activation.
    """
    common.RemoveInitializersFromInputsPass()(model)


def lift_constants(graph: ir.Graph) -> None:
    """Turn Constant nodes into initializers, in subgraphs too; those that are outputs stay."""
    model = ir.Model(graph, ir_version=4)  # the pass takes models; the version is not read
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def name_nodes(graph: ir.Graph) -> None:
    """Give every node a unique name, those of subgraphs included; names that are unique stay."""
    unique_node_names(graph.all_nodes(), empty=True)
