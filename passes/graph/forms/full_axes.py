"""Operators that name the axes they change, written for all axes.

onnxruntime's layout optimizer moves int8 convolutions to channels last and renumbers the axes of
the operators between them, but not those of a Pad or Resize that names its axes (1.32.0): other
axes are changed then, or the run ends in an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..edit import replace_output
from ..names import FreeNames
from ..queries import attr, const, dims, input_at, ints, is_onnx_op, opset, rank


def spell_out_axes(model: ir.Model) -> int:
    """Write each Pad, Resize and CenterCropPad for all axes, in place; return their number.

    Left alone are those whose axes or rank is not known.
    """
    writer = _AxesWriter(model)
    return sum(
        _FORMS[node.op_type](node, writer)
        for node in list(model.graph)
        if node.op_type in _FORMS and is_onnx_op(node)
    )


class _AxesWriter:
    """Adds constants and nodes before the operator that is written anew."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.names = FreeNames(model.graph)

    def constant(self, node: ir.Node, array: NDArray[np.generic]) -> ir.Value:
        name = self.names.tensor(f"{node.name}_all_axes")
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self.graph.register_initializer(value)
        return value

    def add(self, node: ir.Node, op_type: str, *inputs: ir.Value) -> ir.Value:
        made = ir.node(op_type, inputs, name=self.names.node(f"{node.name}_{op_type}"))
        made.outputs[0].name = self.names.tensor(f"{node.name}_{op_type}")
        self.graph.insert_before(node, made)
        return made.outputs[0]

    def scatter(
        self, node: ir.Node, full: NDArray[np.generic], places: Sequence[int], value: ir.Value
    ) -> ir.Value:
        """Write values to places of a constant vector."""
        known = const(value)
        if known is not None:
            full[list(places)] = known.reshape(-1)
            return self.constant(node, full)
        index = self.constant(node, np.array(places, np.int64))
        return self.add(node, "ScatterElements", self.constant(node, full), index, value)


def _pad(node: ir.Node, writer: _AxesWriter) -> bool:
    axes, count, amounts = ints(input_at(node, 3)), rank(node.inputs[0]), input_at(node, 1)
    if axes is None or count is None or amounts is None:
        return False
    places = [axis % count for axis in axes]
    places += [count + place for place in places]
    full = writer.scatter(node, np.zeros(2 * count, np.int64), places, amounts)
    node.replace_input_with(1, full)
    node.resize_inputs(3)
    return True


def _resize(node: ir.Node, writer: _AxesWriter) -> bool:
    axes, count = attr(node, "axes", ()), rank(node.inputs[0])
    area = const(input_at(node, 1))
    plain = input_at(node, 1) is None or (area is not None and not area.size)
    stretches = attr(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
    if not axes or count is None or not plain or not stretches:
        return False
    places = [axis % count for axis in axes]
    scales, sizes = input_at(node, 2), input_at(node, 3)
    if sizes is not None:
        index = writer.constant(node, np.array(places, np.int64))
        assert node.inputs[0] is not None
        shape = writer.add(node, "Shape", node.inputs[0])
        node.replace_input_with(3, writer.add(node, "ScatterElements", shape, index, sizes))
    elif scales is not None:
        full = writer.scatter(node, np.ones(count, np.float32), places, scales)
        node.replace_input_with(2, full)
    node.attributes.pop("axes")
    return True


def _center_crop_pad(node: ir.Node, writer: _AxesWriter) -> bool:
    """Write a CenterCropPad of known sizes as Slice and Pad (ONNX: odd rests go to the end)."""
    value, wanted, known = node.inputs[0], ints(input_at(node, 1)), dims(node.inputs[0])
    if value is None or wanted is None or known is None or opset(node) < _PAD_TAKES_INTEGERS:
        return False
    axes = [axis % len(known) for axis in attr(node, "axes", tuple(range(len(known))))]
    sizes = [known[axis] for axis in axes]
    if any(size is None for size in sizes):
        return False
    cut = [max(0, (size or 0) - want) // 2 for size, want in zip(sizes, wanted, strict=True)]
    end = [
        first + min(size or 0, want) for first, size, want in zip(cut, sizes, wanted, strict=True)
    ]
    lists = [np.array(numbers, np.int64) for numbers in (cut, end, axes)]
    sliced = writer.add(node, "Slice", value, *(writer.constant(node, array) for array in lists))
    amounts = np.zeros((2, len(known)), np.int64)
    for axis, size, want in zip(axes, sizes, wanted, strict=True):
        missing = max(0, want - (size or 0))
        amounts[:, axis] = missing // 2, missing - missing // 2
    pads = writer.constant(node, amounts.reshape(-1))
    replace_output(node.outputs[0], writer.add(node, "Pad", sliced, pads))
    writer.graph.remove(node, safe=True)
    return True


#: First operator set whose Pad takes all element types.
_PAD_TAKES_INTEGERS = 13
_FORMS: dict[str, Callable[[ir.Node, _AxesWriter], bool]] = {
    "CenterCropPad": _center_crop_pad,
    "Pad": _pad,
    "Resize": _resize,
}
