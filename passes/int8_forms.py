"""The same function in forms that have int8 kernels. Each rewrite is exact.

    Slice with steps, Pad with zero channels  ->  Conv 1x1 with those strides and 0/1 weights
    HardSigmoid(x)                            ->  Clip(alpha x + beta, 0, 1)
    HardSwish(x)                              ->  x Clip(x / 6 + 1/2, 0, 1)

The first is the parameter-free shortcut of residual networks (He et al. 2015, option A), which
onnxruntime runs in float between a DequantizeLinear and a QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

#: Channels beyond which a dense 1x1 convolution costs more than the copy it replaces.
MOST_CHANNELS = 512


def to_int8_forms(graph: ir.Graph) -> dict[str, int]:
    """Rewrite in place; how many of each form were found."""
    found: dict[str, int] = {}
    for node in list(graph):
        rule = _RULES.get(node.op_type)
        if rule and node.domain in {"", "ai.onnx"} and rule(graph, node):
            found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


@dataclass(frozen=True)
class _Shortcut:
    """A chain of Slices before a Pad."""

    source: ir.Value
    slices: list[ir.Node]
    strides: tuple[int, int]


def _shortcut(graph: ir.Graph, pad: ir.Node) -> bool:
    """Replace Slice, ..., Pad by a convolution; whether it fitted."""
    chain = _slices_before(pad)
    if chain is None:
        return False
    shape = chain.source.shape
    pads = _channel_pads(pad, graph)
    if shape is None or len(shape) != 4 or pads is None or not isinstance(shape[1], int):
        return False
    channels = shape[1]
    total = pads[0] + channels + pads[1]
    if total > MOST_CHANNELS:
        return False
    weight = np.zeros((total, channels, 1, 1), np.float32)  # (out, in, 1, 1)
    weight[pads[0] + np.arange(channels), np.arange(channels)] = 1
    made = pad.outputs[0]
    conv = ir.node(
        "Conv",
        [chain.source, _constant(graph, f"{made.name}_shortcut_weight", weight)],
        attributes={"strides": list(chain.strides), "kernel_shape": [1, 1]},
        name=f"{pad.name}_as_conv",
    )
    _replace(graph, pad, conv, conv.outputs[0])
    for node in chain.slices:
        graph.remove(node, safe=True)
    return True


def _slices_before(pad: ir.Node) -> _Shortcut | None:
    slices: list[ir.Node] = []
    strides = {2: 1, 3: 1}
    value = pad.inputs[0]
    while value is not None and (node := value.producer()) is not None and node.op_type == "Slice":
        steps = _strided_axes(node)
        if steps is None or len(value.uses()) != 1 or value.is_graph_output():
            return None
        for axis, step in steps.items():
            strides[axis] *= step
        slices.append(node)
        value = node.inputs[0]
    if value is None or value.dtype != ir.DataType.FLOAT or not slices:
        return None
    return _Shortcut(value, slices, (strides[2], strides[3]))


def _strided_axes(node: ir.Node) -> dict[int, int] | None:
    """Steps by axis of a Slice that takes every n-th row or column from the first on."""
    parts = [_array(node, i) for i in range(1, 5)]
    if any(part is None for part in parts) or len(parts) != 4:
        return None
    starts, ends, axes, steps = (np.asarray(part).tolist() for part in parts)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None or len(shape) != 4:
        return None
    found: dict[int, int] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis]
        whole = end >= 2**31 - 1 or (isinstance(size, int) and end >= size)
        if start != 0 or step < 1 or not whole or axis % 4 not in {2, 3}:
            return None
        found[axis % 4] = step
    return found


def _channel_pads(node: ir.Node, graph: ir.Graph) -> tuple[int, int] | None:
    """Zero channels before and after, None where the Pad does anything else."""
    mode = node.attributes.get("mode")
    pads, value, axes = _array(node, 1), _array(node, 2), _array(node, 3)
    given = [i for i in (2, 3) if i < len(node.inputs) and node.inputs[i] is not None]
    unknown = (2 in given and value is None) or 3 in given
    if pads is None or unknown or axes is not None or graph is not node.graph:
        return None
    if (mode is not None and mode.as_string() != "constant") or (value is not None and value.any()):
        return None
    flat = pads.tolist()
    others = [p for i, p in enumerate(flat) if i not in {1, 5}]
    if len(flat) != 8 or any(others) or flat[1] < 0 or flat[5] < 0:
        return None
    return flat[1], flat[5]


def _hard_sigmoid(graph: ir.Graph, node: ir.Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    if x is None or y.dtype not in {None, ir.DataType.FLOAT}:
        return False
    alpha = node.attributes["alpha"].as_float() if "alpha" in node.attributes else 0.2
    beta = node.attributes["beta"].as_float() if "beta" in node.attributes else 0.5
    last = _clipped(graph, node, x, alpha, beta)
    _replace(graph, node, None, last)
    return True


def _hard_swish(graph: ir.Graph, node: ir.Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    if x is None or y.dtype not in {None, ir.DataType.FLOAT}:
        return False
    gate = _clipped(graph, node, x, 1 / 6, 0.5)
    product = ir.node("Mul", [x, gate], name=f"{node.name}_mul")
    _replace(graph, node, product, product.outputs[0])
    return True


def _clipped(graph: ir.Graph, node: ir.Node, x: ir.Value, alpha: float, beta: float) -> ir.Value:
    """Clip(alpha x + beta, 0, 1), put before `node`."""
    base = node.outputs[0].name
    scalars = {
        name: _constant(graph, f"{base}_{name}", np.array(v, np.float32))
        for name, v in {"alpha": alpha, "beta": beta, "zero": 0.0, "one": 1.0}.items()
    }
    scaled = ir.node("Mul", [x, scalars["alpha"]], name=f"{node.name}_scale")
    shifted = ir.node("Add", [scaled.outputs[0], scalars["beta"]], name=f"{node.name}_shift")
    clipped = ir.node(
        "Clip",
        [shifted.outputs[0], scalars["zero"], scalars["one"]],
        name=f"{node.name}_clip",
    )
    for made, part in ((scaled, "scaled"), (shifted, "shifted"), (clipped, "clipped")):
        made.outputs[0].name = f"{base}_{part}"
        made.outputs[0].dtype, made.outputs[0].shape = ir.DataType.FLOAT, x.shape
    graph.insert_before(node, [scaled, shifted, clipped])
    return clipped.outputs[0]


def _replace(graph: ir.Graph, old: ir.Node, new: ir.Node | None, value: ir.Value) -> None:
    """Put `new` in the place of `old`; its output takes over the old one's name and users."""
    made = old.outputs[0]
    if new is not None:
        graph.insert_before(old, new)
    name = made.name
    if made.dtype is not None:  # setting none would make a type of nothing
        value.dtype = made.dtype
    value.shape = made.shape
    made.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(old, safe=True)
    value.name = name


def _constant(graph: ir.Graph, name: str, array: NDArray[np.float32]) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _array(node: ir.Node, index: int) -> NDArray[np.int64] | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


_RULES: dict[str, Callable[[ir.Graph, ir.Node], bool]] = {
    "Pad": _shortcut,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
}
