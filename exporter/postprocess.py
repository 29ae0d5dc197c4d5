"""Postprocessing of torch's ONNX program: names, copies of weights, no traces of the machine."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from .flat_module import free_name

#: Prefix of the weights' names in a `FlatModule`.
PREFIX = "module."
SCOPES = "pkg.torch.onnx.name_scopes"


def postprocess(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """Name the graph's inputs and outputs, copy its weights and strip torch's metadata, in place.

    No output may have the name of an input.

    Returns:
        torch's name of each inner value by its final name, to trace differences.
    """
    graph = model.graph
    before = {value: value.name or "" for node in graph for value in node.outputs}
    _copy_weights(graph)
    _separate_outputs(graph)
    _name_nodes(graph)
    _name_values(graph, inputs, outputs)
    _strip(model)
    return {value.name or "": name for value, name in before.items()}


def _copy_weights(graph: ir.Graph) -> None:
    """Copy the weights, so that further training of the module does not change the model."""
    for name, value in list(graph.initializers.items()):
        if value.const_value is not None:
            array = np.array(value.const_value.numpy(), copy=True, order="C")
            dtype = value.const_value.dtype
            value.const_value = ir.Tensor(array, dtype=dtype, name=name)
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in graph.initializers:
            value.name = name.removeprefix(PREFIX)


def _separate_outputs(graph: ir.Graph) -> None:
    """Give each output a separate value, even where it is a weight, an input or repeated."""
    seen: set[ir.Value] = set()
    for index, value in enumerate(graph.outputs):
        if value in seen or value.producer() is None:
            copy = ir.Value(name=f"{value.name}_copy", shape=value.shape, type=value.type)
            graph.append(ir.Node("", "Identity", [value], outputs=[copy], name=f"copy_{index}"))
            graph.outputs[index] = copy
        seen.add(value)


def _name_nodes(graph: ir.Graph) -> None:
    """Name nodes after their submodule, `layer1.0.conv1/conv2d`, for messages."""
    taken: set[str] = set()
    for node in graph.all_nodes():
        name = (node.name or node.op_type).removeprefix("node_")
        scope = _scope(node.metadata_props)
        name = free_name(f"{scope}/{name}" if scope else name, taken)
        taken.add(name)
        node.name = name


def _scope(notes: Mapping[str, str]) -> str:
    """Return the innermost submodule of a list such as `['', 'module.fc', 'linear']`."""
    try:
        scopes = ast.literal_eval(notes.get(SCOPES, "[]"))[:-1]
    except (ValueError, SyntaxError):
        return ""
    inner = str(scopes[-1]) if scopes else ""
    # Other scopes are torch's own, such as shapes that it computes before the module runs.
    return inner.removeprefix(PREFIX) if inner.startswith(PREFIX) else ""


def _name_values(graph: ir.Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name inputs and outputs; an inner value of the same name is renamed.

    torch's own renaming keeps both, and onnxruntime refuses the file ("Duplicate definition").
    """
    outer = dict(zip([*graph.inputs, *graph.outputs], [*inputs, *outputs], strict=True))
    values = list(_values(graph))
    taken = {v.name for v in values} | set(outer.values())
    wanted = set(outer.values())
    for value in values:
        if value in outer or value.name in wanted:
            value.name = free_name(f"{value.name}_inner", taken)
            taken.add(value.name)
    for value, name in outer.items():
        value.name = name


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield all named values, those of subgraphs included."""
    for part in (graph, *graph.subgraphs()):
        yield from part.inputs
        yield from part.initializers.values()
        for node in part:
            yield from (value for value in node.outputs if value.name)


def _strip(model: ir.Model) -> None:
    """Remove torch's metadata: stack traces contain paths of this machine and bloat the file."""
    functions = list(model.functions.values())
    graphs = [model.graph, *model.graph.subgraphs(), *(function.graph for function in functions)]
    described: list[ir.Model | ir.Graph | ir.Node | ir.Value] = [model]
    for graph in graphs:
        described += [graph, *graph, *_values(graph)]
    for item in described:
        item.doc_string = None
    for owner in (*described, *functions):
        owner.metadata_props.clear()
