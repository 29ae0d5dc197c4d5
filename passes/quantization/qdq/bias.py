"""Biases of layers in a Q/DQ graph: int32, float, or added where there is none."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Floats

from ...graph.edit import add_initializer, replace_output
from ...graph.queries import input_at, is_float, producer_in_any_domain
from ...graph.stored.weight_scales import channel_axis

#: Suffix of the names of Add nodes that add a bias where a product had none.
_ADDED_SUFFIX = "_added_bias"


@dataclass
class Bias:
    """A bias that can be shifted and restored.

    Attributes:
        value: the initializer that holds it.
        scale: scale of its integers, (channels,) or a scalar; 1 where it is float.
        before: tensor before the last shift.
    """

    value: ir.Value
    scale: Floats = field(default_factory=lambda: np.ones(()))
    before: ir.TensorProtocol | None = None

    @property
    def costs_a_node(self) -> bool:
        """True where `find_bias` added an operator for it, which runs only for its sake."""
        return any((node.name or "").endswith(_ADDED_SUFFIX) for node, _ in self.value.uses())

    def shift(self, by: Floats) -> None:
        """Add to the bias, in units of the layer's output."""
        self.before = self.value.const_value
        assert self.before is not None
        old = self.before.numpy()
        if old.dtype == np.int32:
            limits = np.iinfo(np.int32)
            new = np.clip(old + np.round(by / self.scale), limits.min, limits.max)
        else:
            new = old + by.reshape(-1)
        self.value.const_value = ir.tensor(new.astype(old.dtype), name=self.value.name)

    def undo(self) -> None:
        """Undo the last shift."""
        self.value.const_value = self.before


def find_bias(graph: ir.Graph, layer: ir.Node, *, integer: bool = True) -> Bias | str:
    """Return a layer's bias, added where it has none; or the reason why there cannot be one.

    Added biases are int32 with `integer`, as CPU kernels take them; TensorRT takes float only.
    """
    if layer.op_type == "MatMul":
        found = _following_bias(layer)
        return _append_add(graph, layer) if found is None else found
    value = input_at(layer, 2)
    return _existing_bias(value) if value is not None else _add_bias(graph, layer, integer=integer)


def _existing_bias(value: ir.Value) -> Bias | str:
    if value.const_value is not None:
        return Bias(value) if len(value.uses()) == 1 else "its bias is shared"
    node = producer_in_any_domain(value, "DequantizeLinear")
    integer, scale = node.inputs[:2] if node is not None else (None, None)
    if integer is None or scale is None or integer.const_value is None or scale.const_value is None:
        return "its bias is computed while the model runs"
    if len(integer.uses()) > 1 or len(value.uses()) > 1:
        return "its bias is shared"
    return Bias(integer, scale.const_value.numpy().astype(np.float64))


def _following_bias(layer: ir.Node) -> Bias | None:
    """Return the float constant that the next operator adds to a matrix product."""
    uses = list(layer.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        return None
    other = uses[0].node.inputs[1 - uses[0].idx]
    if other is None or other.const_value is None or not is_float(other):
        return None
    own_vector = len(other.const_value.shape) == 1 and len(other.uses()) == 1
    return Bias(other) if own_vector else None


def _append_add(graph: ir.Graph, layer: ir.Node) -> Bias | str:
    """Add a zero bias to a matrix product that has none.

    In float: onnxruntime adds it where it scales the product's int32 sums (MatMulIntegerToFloat).
    """
    output, node = layer.outputs[0], producer_in_any_domain(layer.inputs[1], "DequantizeLinear")
    source = node.inputs[0] if node is not None else None
    if source is None:
        return "its second input is not a quantized weight"
    if source.const_value is None:
        return "it is a product of two activations, whose channels are not fixed"
    if len(source.const_value.shape) < 2:
        return "it multiplies by a vector, and its outputs have no channels"
    zeros = np.zeros(source.const_value.shape.numpy()[-1], np.float32)
    bias = add_initializer(graph, _free_name(graph, f"{layer.name}_bias"), zeros)
    add = ir.node("Add", [output, bias], name=f"{layer.name}{_ADDED_SUFFIX}")
    replace_output(output, add.outputs[0])
    add.replace_input_with(0, output)
    output.name = f"{add.outputs[0].name}_product"
    graph.insert_after(layer, add)
    return Bias(bias)


def remove_unused_biases(graph: ir.Graph) -> None:
    """Remove biases that `find_bias` added after products and that were not shifted."""
    for node in list(graph):
        added_here = node.op_type == "Add" and (node.name or "").endswith(_ADDED_SUFFIX)
        bias = node.inputs[1] if added_here else None
        if bias is None or bias.const_value is None or bias.const_value.numpy().any():
            continue
        output, out = node.inputs[0], node.outputs[0]
        assert output is not None
        name = out.name
        out.replace_all_uses_with(output, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        output.name = name
        del graph.initializers[bias.name or ""]


def _add_bias(graph: ir.Graph, layer: ir.Node, *, integer: bool) -> Bias | str:
    """Add a zero bias to a convolution or Gemm, integers in units of its int32 sums."""
    scales = [_scale(layer.inputs[0]), _scale(layer.inputs[1])]
    weight = layer.inputs[1]
    if scales[0] is None or scales[1] is None or weight is None:
        return "its input or weight is not quantized"
    channels = _output_channels(layer, weight)
    if channels is None:
        return "the shape of its weight is not known"
    name = _free_name(graph, f"{layer.name}_bias")
    if not integer:
        value = add_initializer(graph, name, np.zeros(channels, np.float32))
        _append(layer, value)
        return Bias(value)
    scale = scales[0].reshape(-1) * scales[1].reshape(-1)
    scale = np.tile(scale, channels // len(scale))  # one scale, or one for each channel of a group
    constants = [
        add_initializer(graph, f"{name}_quantized", np.zeros(channels, np.int32)),
        add_initializer(graph, f"{name}_scale", scale.astype(np.float32)),
        add_initializer(graph, f"{name}_zero_point", np.zeros(channels, np.int32)),
    ]
    dequantize = ir.node(
        "DequantizeLinear", constants, attributes={"axis": 0}, name=f"{name}_DequantizeLinear"
    )
    dequantize.outputs[0].name = name
    graph.insert_before(layer, dequantize)
    _append(layer, dequantize.outputs[0])
    return Bias(constants[0], scale.astype(np.float64))


def _append(layer: ir.Node, bias: ir.Value) -> None:
    layer.resize_inputs(max(3, len(layer.inputs)))
    layer.replace_input_with(2, bias)


def _output_channels(layer: ir.Node, weight: ir.Value) -> int | None:
    """Return the number of output channels, from the shape of the quantized weight."""
    node = weight.producer()
    assert node is not None
    assert node.inputs[0] is not None
    shape = node.inputs[0].shape
    if shape is None:
        return None
    if layer.op_type == "ConvTranspose":  # (inputs, outputs / groups, kernel)
        groups = layer.attributes.get_int("group", 1)
        return shape[1] * groups if isinstance(shape[1], int) else None
    width = shape[channel_axis(layer) or 0]
    return width if isinstance(width, int) else None


def _scale(value: ir.Value | None) -> Floats | None:
    node = producer_in_any_domain(value, "DequantizeLinear")
    scale = node.inputs[1] if node is not None else None
    tensor = scale.const_value if scale is not None else None
    return None if tensor is None else tensor.numpy().astype(np.float64)


def _free_name(graph: ir.Graph, name: str) -> str:
    """Return the name, or a longer one where the model uses it already."""
    taken = {value.name for node in graph.all_nodes() for value in node.outputs}
    taken.update(graph.initializers, *(inner.initializers for inner in graph.subgraphs()))
    while name in taken or f"{name}_quantized" in taken:
        name += "_"
    return name
