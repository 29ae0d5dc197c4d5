"""What a graph must be before it is quantized, and the small repairs that make it so.

onnxruntime's quantizer finds nodes by name, takes a weight in a Constant node for an activation,
and cannot quantize per channel below opset 13.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from trimtab.core.collector import collector_paused
from trimtab.core.errors import InputError, ModelError, OptionError, nearest
from trimtab.core.model import Model
from trimtab.core.ort.running import INT8_OPS, QDQ_OPS
from trimtab.core.target import Target

#: First operator set in which DequantizeLinear has an axis.
MINIMUM_OPSET = 13
#: First operator set whose Q/DQ pairs onnxruntime runs on float16.
HALF_OPSET = 21


@collector_paused()
def prepare(model: Model) -> None:
    """Make the graph of a clone ready: Constants lifted, nodes named, shapes known.

    Raises:
        InputError: the model is quantized already.
        ModelError: its operator set is too old, for float32 or for float16.
    """
    refuse_quantized(model)
    if model.opset < MINIMUM_OPSET:
        raise ModelError(
            f"has opset {model.opset}; int8 weights per channel need {MINIMUM_OPSET}",
            where=model.name,
            hint="Run the pass simplify first: it raises the opset",
        )
    halves = [w for w in model.graph.initializers.values() if w.dtype == ir.DataType.FLOAT16]
    if halves and model.opset < HALF_OPSET:
        raise ModelError(
            f"has float16 weights, which Q/DQ take from opset {HALF_OPSET} on, not {model.opset}",
            where=f"{model.name}, tensor {halves[0].name!r}",
            hint="Quantize the float32 model: int8 gains nothing from float16 before it",
        )
    lift_constants(model.graph)
    name_nodes(model.graph)
    # Old files list weights as inputs too; the quantizer drops such a weight and keeps the input.
    weights = model.graph.initializers
    kept = [value for value in model.graph.inputs if value.name not in weights]
    if len(kept) < len(model.graph.inputs):
        model.graph.inputs[:] = kept
    ShapeInferencePass()(model.ir)


def refuse_quantized(model: Model) -> None:
    """Refuse a model that holds int8 arithmetic.

    Raises:
        InputError: names the first such node.
    """
    for node in model.nodes():
        if node.op_type in INT8_OPS or node.op_type in QDQ_OPS:
            raise InputError(
                f"is quantized already: node {node.name!r} is a {node.op_type}",
                where=model.name,
                hint="Quantize the float model that it was made from",
            )


def lift_constants(graph: ir.Graph) -> None:
    """Turn Constant nodes of the main graph into initializers; other forms than `value` stay."""
    for node in list(graph):
        if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"}:
            continue
        value = node.outputs[0]
        attribute = node.attributes.get("value")
        if attribute is None or value.is_graph_output():
            continue
        tensor = attribute.as_tensor()
        fresh = ir.val(
            value.name or "",
            dtype=tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        value.replace_all_uses_with(fresh)
        graph.remove(node, safe=True)
        graph.register_initializer(fresh)


def name_nodes(graph: ir.Graph) -> None:
    """Give every node a name of its own; names that are unique stay."""
    taken: set[str] = set()
    clashes: list[ir.Node] = []
    for node in graph.all_nodes():
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            clashes.append(node)
    for index, node in enumerate(clashes):
        name = base = f"{node.name or node.op_type}_{index}"
        while name in taken:
            name = f"{base}_{len(taken)}"
        taken.add(name)
        node.name = name


def match_nodes(patterns: Sequence[str], graph: ir.Graph) -> list[str]:
    """Names of the nodes that any of the glob patterns matches.

    Raises:
        OptionError: a pattern matches nothing; the nearest name is suggested.
    """
    names = [node.name or "" for node in graph.all_nodes()]
    return _matches(patterns, names, "node", where="exclude")


def match_tensors(patterns: Sequence[str], tensors: Sequence[str], target: Target) -> list[str]:
    """Names of the activations that shall have 16 bits.

    Raises:
        OptionError: the target has no kernels for them, or a pattern matches nothing.
    """
    if patterns and not target.int16_activations:
        raise OptionError(
            f"target {target.name} has no kernels for 16-bit activations",
            where=f"wide={','.join(patterns)}",
            hint="They would run in float there: leave the layers float with exclude or max_drop",
        )
    return _matches(patterns, tensors, "quantized activation", where="wide")


def _matches(patterns: Sequence[str], names: Sequence[str], what: str, *, where: str) -> list[str]:
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = fnmatch.filter(names, pattern)
        if not hits:
            raise OptionError(
                f"matches no {what}: {pattern!r}", where=where, hint=nearest(pattern, names)
            )
        found.update(dict.fromkeys(hits))
    return list(found)


def in_subgraphs(graph: ir.Graph, ops: Iterable[str]) -> Iterator[ir.Node]:
    """Nodes of these types that stand inside of If, Loop or Scan."""
    wanted = set(ops)
    return (n for n in graph.all_nodes() if n.graph is not graph and n.op_type in wanted)
