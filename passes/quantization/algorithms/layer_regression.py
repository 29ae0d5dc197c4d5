"""A layer as a linear regression: rows of its inputs and of the outputs wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Floats32

from ...graph.queries import attr
from ...graph.stored.weight_scales import channel_axis
from .scalable_pairs import group_count

#: Output positions sampled from each image of a convolution.
POSITIONS = 24


@dataclass(frozen=True)
class InputWindow:
    """Geometry of the inputs that the kernel of a convolution reads, by axis.

    Attributes:
        kernel: sizes of the kernel.
        strides: steps between output positions.
        dilations: steps between the inputs of a kernel.
        pads: zeros before each axis, then behind each; None where `auto_pad` decides.
        auto_pad: attribute of the convolution.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    auto_pad: str

    @classmethod
    def of(cls, node: ir.Node, shape: tuple[int, ...]) -> InputWindow:
        """Return the window of a convolution with a weight of this shape."""
        axes = len(shape) - 2
        auto = node.attributes.get_string("auto_pad", "NOTSET")
        pads = attr(node, "pads", (0,) * 2 * axes) if auto == "NOTSET" else None
        strides, dilations = (attr(node, name, (1,) * axes) for name in ("strides", "dilations"))
        return cls(shape[2:], strides, dilations, pads, auto)

    def patches(self, x: Floats32, most: int, rng: np.random.Generator) -> tuple[Floats32, Any]:
        """Gather what the kernel reads at random output positions, at most this many.

        Returns:
            (N, positions, C, *kernel) of an input (N, C, *sizes), and for each axis the positions.
        """
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        padded = np.pad(x, [(0, 0), (0, 0), *self._pads(x.shape[2:], spans)])
        axes = tuple(range(2, x.ndim))
        views = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
        steps = [slice(None, None, n) for n in (*self.strides, *self.dilations)]
        views = views[(slice(None), slice(None), *steps)]
        sizes = views.shape[2 : x.ndim]
        total = int(np.prod(sizes))
        flat = rng.choice(total, min(most, total), replace=False)
        chosen: Any = np.unravel_index(flat, sizes)
        taken: Floats32 = np.moveaxis(views[(slice(None), slice(None), *chosen)], 2, 1)
        return taken, chosen

    def _pads(self, sizes: tuple[int, ...], spans: list[int]) -> list[tuple[int, int]]:
        if self.pads is not None:
            half = len(sizes)
            return list(zip(self.pads[:half], self.pads[half:], strict=True))
        if self.auto_pad == "VALID":
            return [(0, 0)] * len(sizes)
        found = []
        for size, span, stride in zip(sizes, spans, self.strides, strict=True):
            whole = max((-(-size // stride) - 1) * stride + span - size, 0)
            small = whole // 2
            upper = self.auto_pad == "SAME_UPPER"
            found.append((small, whole - small) if upper else (whole - small, small))
        return found


def regression_rows(
    node: ir.Node, shape: tuple[int, ...], x: Floats32, y: Floats32, rng: np.random.Generator
) -> tuple[Floats32, Floats32]:
    """Return rows of a layer's input x and of its output y, for a weight of this shape.

    The generator chooses positions of a convolution, the same for all images.

    Returns:
        (groups, rows, depth) and (groups, rows, outputs of a group).
    """
    if node.op_type != "Conv":
        return _product_rows(node, x), y.reshape(1, -1, y.shape[-1])
    inputs, chosen = _conv_rows(node, shape, x, POSITIONS, rng)
    outputs = np.moveaxis(y[(slice(None), slice(None), *chosen)], 2, 1)
    outputs = outputs.reshape(inputs.shape[1], len(inputs), -1)
    return inputs, outputs.transpose(1, 0, 2)


def input_rows(
    node: ir.Node, shape: tuple[int, ...], x: Floats32, most: int, rng: np.random.Generator
) -> Floats32:
    """Return rows (groups, rows, depth) of a layer's input, at most so many of each image."""
    if node.op_type == "Conv":
        return _conv_rows(node, shape, x, most, rng)[0]
    return _product_rows(node, x)


def _product_rows(node: ir.Node, x: Floats32) -> Floats32:
    """Return what a product multiplies its weight by: (1, rows, depth)."""
    rows = x.T if node.attributes.get_int("transA", 0) else x
    return rows.reshape(1, -1, rows.shape[-1])


def _conv_rows(
    node: ir.Node, shape: tuple[int, ...], x: Floats32, most: int, rng: np.random.Generator
) -> tuple[Floats32, Any]:
    taken, chosen = InputWindow.of(node, shape).patches(x, most, rng)
    rows = taken.reshape(len(x) * len(chosen[0]), group_count(node), -1)
    return rows.transpose(1, 0, 2), chosen


def as_columns(node: ir.Node, weight: NDArray[Any]) -> NDArray[Any]:
    """Return a weight as (groups, depth, outputs of a group)."""
    if node.op_type == "Conv":
        groups = group_count(node)
        return weight.reshape(groups, weight.shape[0] // groups, -1).transpose(0, 2, 1)
    return (weight.T if channel_axis(node) == 0 else weight)[None]


def from_columns(node: ir.Node, columns: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the weight of this shape from the result of `as_columns`."""
    if node.op_type == "Conv":
        return np.ascontiguousarray(columns.transpose(0, 2, 1)).reshape(shape)
    return np.ascontiguousarray(columns[0].T if channel_axis(node) == 0 else columns[0])
