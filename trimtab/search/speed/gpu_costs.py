"""Products and bytes of one run on a GPU, from the graph as it is written.

No machine with the GPU is needed, so its provider's own graph is not known. It is known that CUDA's
provider has no int8 kernels, so that Q and DQ run as they are around float products; TensorRT
runs a product whose inputs all come from DequantizeLinear in int8 and absorbs Q and DQ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import FLOAT_OPS, INT8_OPS, between_qdq, macs_of
from trimtab.core.ort.session import Feeds, SessionConfig

from .tensors import Tensor, tensors_of

#: Activations that both providers fuse behind a product.
_ACTIVATIONS = frozenset({"Clip", "Relu"})
#: Operators that give a tensor another shape, and move no bytes.
_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@gc_paused()
def counted_on_gpu(
    model: Model, config: SessionConfig, feeds: Feeds, *, fused: bool
) -> tuple[int, int, int, int]:
    """Count multiply-accumulates and bytes: (float, int8, bytes read and written, float16).

    Args:
        model: the graph as it is written.
        config: configuration of a session on this machine, which finds the shapes.
        feeds: inputs of one run.
        fused: true where the provider runs Q/DQ around a product as an int8 product.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    tensors = tensors_of(model, config, feeds)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    inside = _inside_kernels(model.graph)
    macs = {"float": 0, "int8": 0, "half": 0}
    moved = 0
    for node in model.graph.all_nodes():
        if node.op_type in FLOAT_OPS or node.op_type in INT8_OPS:
            macs[_kind(node, tensors, fused=fused)] += macs_of(node, shapes)
        if node.op_type in _VIEWS or (fused and node.op_type in {_QUANTIZE, _DEQUANTIZE}):
            continue
        outside = [value for value in _values(node) if value not in inside]
        moved += sum(_bytes(value, tensors, fused=fused) for value in outside)
    return macs["float"], macs["int8"], moved, macs["half"]


def _inside_kernels(graph: ir.Graph) -> set[ir.Value]:
    """Return the values between a product and the sum and activation fused into its kernel."""
    inside: set[ir.Value] = set()
    for node in graph:
        value = node.outputs[0]
        users = [use.node.op_type for use in value.uses()]
        if len(users) != 1 or value.is_graph_output():
            continue
        added = node.op_type == "Add" and any(v in inside for v in node.inputs)
        product = node.op_type in FLOAT_OPS
        if (product and users[0] == "Add") or ((product or added) and users[0] in _ACTIVATIONS):
            inside.add(value)
    return inside


def _kind(node: ir.Node, tensors: Mapping[str, Tensor], *, fused: bool) -> str:
    if fused and between_qdq(node):
        return "int8"
    factors = [value for value in node.inputs[:2] if value is not None]
    found = [tensors.get(value.name or "") for value in factors]
    return "half" if found and all(t is not None and t.half for t in found) else "float"


def _bytes(value: ir.Value, tensors: Mapping[str, Tensor], *, fused: bool) -> int:
    """Return the size of a tensor as the kernels see it: int8 where Q/DQ are absorbed."""
    if fused:
        origin, users = value.producer(), [use.node for use in value.uses()]
        if origin is not None and origin.op_type == _DEQUANTIZE and origin.inputs[0] is not None:
            value = origin.inputs[0]
        elif users and all(user.op_type == _QUANTIZE for user in users):
            value = users[0].outputs[0]
    tensor = tensors.get(value.name or "")
    return 0 if tensor is None else tensor.nbytes


def _values(node: ir.Node) -> Iterator[ir.Value]:
    return (value for value in (*node.inputs, *node.outputs) if value is not None)
