"""Images of three channels padded with a fourth of zeros, for the int8 convolution they enter.

onnxruntime's int8 convolutions on x64 read pixels in place, four channels at a time, if the number
of channels is a multiple of four; otherwise each window is copied first, which takes longer than
the products of so few channels. A channel of zeros changes no sum: the result is bit for bit the
same wherever sums do not saturate, that is, with VNNI or with weights of 7 bits. On x64 without
VNNI other pairs of products are added in 16 bits, so with 8 bits other sums saturate.
Measured: the first convolution of an image of 32 x 32 takes 16 us instead of 24, of 224 x 224
225 us instead of 328, the Pad included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...graph.edit import add_initializer
from ...graph.queries import attr, const, dims, is_float, only_user, producer, rank
from ...rewrites.shortcuts import pads_of

#: Input channels that the kernel reads at a time.
TOGETHER = 4
#: Least output channels for which that kernel is used.
LEAST_OUTPUTS = 16
#: Float operators allowed between the model's input and its first convolution.
_PREPARATION = frozenset({"Cast", "Sub", "Div", "Mul", "Add", "Transpose"})


def fill_input_channels(graph: ir.Graph) -> int:
    """Fill the channels of images that int8 convolutions read, in place; return their number."""
    return sum(_fill(graph, node) for node in list(graph) if node.op_type == "Conv")


def filled_weight(weight: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Return a float weight with input channels of zeros as its int8 form of that shape has.

    Unchanged where the shapes differ otherwise.
    """
    missing = shape[1] - weight.shape[1] if weight.ndim == len(shape) == 4 else 0
    if not 0 < missing < TOGETHER:
        return weight
    wide = np.pad(weight, [(0, missing if axis == 1 else 0) for axis in range(weight.ndim)])
    return wide if wide.shape == tuple(shape) else weight


def filled_image(value: ir.Value) -> ir.Value | None:
    """Return the image without added channels of zeros, None where a value is not filled."""
    pad = producer(value, "Pad")
    amounts = pads_of(pad) if pad is not None else ""
    if pad is None or isinstance(amounts, str):
        return None
    before, after = amounts
    behind = 0 < after[1] < TOGETHER and not any((*before, after[0], *after[2:]))
    return pad.inputs[0] if behind else None


def _fill(graph: ir.Graph, conv: ir.Node) -> bool:
    dequantize, of_weight = (producer(v, "DequantizeLinear") for v in conv.inputs[:2])
    quantize = producer(dequantize.inputs[0], "QuantizeLinear") if dequantize is not None else None
    if dequantize is None or of_weight is None or quantize is None:
        return False
    image, integers = quantize.inputs[0], of_weight.inputs[0]
    weight = const(integers)
    if image is None or integers is None or weight is None or not _is_image(image):
        return False
    chain = (quantize.outputs[0], dequantize.outputs[0], of_weight.outputs[0], integers)
    missing = -weight.shape[1] % TOGETHER
    if not missing or not _is_faster(conv, weight.shape) or not all(only_user(v) for v in chain):
        return False
    name = integers.name
    wide = filled_weight(weight, (weight.shape[0], weight.shape[1] + missing, *weight.shape[2:]))
    integers.const_value, integers.shape = ir.tensor(wide, name=name), ir.Shape(wide.shape)
    quantize.replace_input_with(0, _pad_image(graph, quantize, image, missing))
    for value in chain[:3]:
        if value.shape is not None:
            value.shape = ir.Shape([*value.shape[:1], wide.shape[1], *value.shape[2:]])
    return True


def _is_image(value: ir.Value) -> bool:
    """Return whether a value is an input of the model, or float arithmetic on its pixels."""
    if not is_float(value) or rank(value) != 4:
        return False
    source_node = value.producer()
    if source_node is None:
        return value.is_graph_input()
    rounded = any(producer(v, "DequantizeLinear") is not None for v in source_node.inputs)
    return source_node.op_type in _PREPARATION and not rounded


def _is_faster(conv: ir.Node, shape: tuple[int, ...]) -> bool:
    """Return whether the kernel is used and windows overlap: else there is little to copy."""
    outputs, _, *window = shape
    strides = attr(conv, "strides", (1,) * len(window))
    overlap = any(size > step for size, step in zip(window, strides, strict=True))
    dense = attr(conv, "group", 1) == 1 and outputs >= LEAST_OUTPUTS
    return dense and len(window) == 2 and (overlap or set(strides) == {1})


def _pad_image(graph: ir.Graph, before: ir.Node, image: ir.Value, missing: int) -> ir.Value:
    """Append channels of zeros to the image."""
    name = f"{image.name}_filled"
    amounts = np.array([0, 0, 0, 0, 0, missing, 0, 0], np.int64)
    pads = add_initializer(graph, f"{name}_pads", amounts)
    output = ir.val(name, ir.DataType.FLOAT)
    sizes = dims(image)
    if image.shape is not None and sizes is not None and isinstance(sizes[1], int):
        output.shape = ir.Shape([image.shape[0], sizes[1] + missing, *image.shape[2:]])
    graph.insert_before(before, ir.node("Pad", [image, pads], outputs=[output], name=name))
    return output
