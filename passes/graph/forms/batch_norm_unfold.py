"""BatchNormalization put back behind convolutions that it was folded into.

A deployed graph has its norms folded away, and so it learns slowly: channels differ in scale, and
each step shifts the inputs of all later layers (Ioffe and Szegedy, "Batch Normalization", 2015). A
norm whose scale and shift are the deviation and the mean of its input does not change the function,
and lets weights learn at the rates of a training from scratch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.model import Model

from ..edit import add_initializer
from ..queries import const, input_at, users

EPSILON = 1e-5
#: Layers whose input a norm may scale freely, since they learn to undo it.
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_NUMBERS = {"scale": 1.0, "shift": 0.0, "mean": 0.0, "var": 1.0 - EPSILON}


@dataclass(frozen=True)
class Restored:
    """Names of the initializers of a norm that was inserted, and of the convolution before it."""

    kernel: str
    bias: str | None
    scale: str
    shift: str
    mean: str
    var: str


def restore_norms(model: Model) -> tuple[Model, list[Restored]]:
    """Insert a norm that does nothing yet behind each convolution that may have had one.

    Those are convolutions that further layers follow: the scale of the last one is that of the
    output. A convolution that has a norm, shares its weights or is quantized stays as it is.
    """
    after = model.clone()
    graph = after.graph
    inner = _inner(graph)
    layers = [n for n in graph if n.op_type == "Conv" and n in inner and _can_restore(n)]
    made = [_insert(graph, layer) for layer in layers]
    return dataclasses.replace(model, ir=after.ir), made


def _inner(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that a layer follows."""
    found: set[ir.Node] = set()
    for node in reversed(list(graph)):
        readers = {user for value in node.outputs for user in users(value)}
        if any(user in found or user.op_type in _LAYERS for user in readers):
            found.add(node)
    return found


def _can_restore(layer: ir.Node) -> bool:
    """Return whether a float convolution with weights of its own is followed by no norm."""
    made, (kernel, *biases) = layer.outputs[0], layer.inputs[1:]
    own = [v for v in (kernel, *biases) if v is not None]
    if kernel is None or made.is_graph_output():
        return False
    if any(const(v) is None or len(v.uses()) > 1 or v.is_graph_output() for v in own):
        return False
    if any(v.const_value.dtype != ir.DataType.FLOAT for v in own if v.const_value is not None):
        return False
    return all(use.node.op_type != "BatchNormalization" for use in made.uses())


def _insert(graph: ir.Graph, layer: ir.Node) -> Restored:
    """Insert one norm; its output takes the name, which stays when the norm is folded again."""
    made, kernel = layer.outputs[0], layer.inputs[1]
    bias = input_at(layer, 2)
    assert kernel is not None
    assert kernel.const_value is not None
    channels = kernel.const_value.shape.numpy()[0]
    numbers = {
        kind: add_initializer(
            graph, f"{kernel.name}.norm.{kind}", np.full(channels, number, np.float32)
        )
        for kind, number in _NUMBERS.items()
    }
    norm = ir.node("BatchNormalization", [made, *numbers.values()], {"epsilon": EPSILON})
    after = norm.outputs[0]
    name, made.name = made.name, f"{made.name}.unnormed"
    after.name, after.type, after.shape = name, made.type, made.shape
    made.replace_all_uses_with(after)
    norm.replace_input_with(0, made)
    graph.insert_after(layer, norm)
    names = {kind: str(value.name) for kind, value in numbers.items()}
    return Restored(str(kernel.name), None if bias is None else str(bias.name), **names)
