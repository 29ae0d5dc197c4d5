"""A layer as a linear regression: rows of its inputs and of the outputs wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Floats32

from ...graph.convolutions import conv_attrs
from ...graph.weight_scales import channel_axis
from .scalable_pairs import group_count

#: Output positions sampled from each image of a convolution.
POSITIONS = 24


@dataclass(frozen=True)
class InputWindow:
    """Geometry of the inputs that the kernel of a 2-D convolution reads.

    Vertical values come before horizontal ones; pads are top, left, bottom, right.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    def patches(self, x: Floats32, rows: NDArray[Any], columns: NDArray[Any]) -> Floats32:
        """Gather (N, P, C, kernel height, kernel width) at P output positions of (N, C, H, W)."""
        top, left, bottom, right = self.pads
        padded = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)])
        r = rows[:, None] * self.strides[0] + np.arange(self.kernel[0]) * self.dilations[0]
        c = columns[:, None] * self.strides[1] + np.arange(self.kernel[1]) * self.dilations[1]
        taken: Floats32 = padded[:, :, r[:, :, None], c[:, None, :]]  # (N, C, P, kh, kw)
        return taken.transpose(0, 2, 1, 3, 4)


def input_window(node: ir.Node, shape: tuple[int, ...]) -> InputWindow | None:
    """Return the window of a 2-D convolution with a weight of this shape, None for others."""
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if len(shape) != 4 or auto not in {"NOTSET", "VALID"}:
        return None
    found = conv_attrs(node)
    pads = found["pads"] or (0, 0, 0, 0)  # auto_pad is VALID
    return InputWindow(shape[2:], found["strides"], found["dilations"], pads)


def regression_rows(
    node: ir.Node, shape: tuple[int, ...], x: Floats32, y: Floats32, rng: np.random.Generator
) -> tuple[Floats32, Floats32]:
    """Return rows of a layer's input x and of its output y, for a weight of this shape.

    The generator chooses positions of a convolution, the same for all images.

    Returns:
        (groups, rows, depth) and (groups, rows, outputs of a group).
    """
    if node.op_type != "Conv":
        return x.reshape(1, -1, x.shape[-1]), y.reshape(1, -1, y.shape[-1])
    window = input_window(node, shape)
    assert window is not None
    count = min(POSITIONS, y.shape[2] * y.shape[3])
    chosen = rng.choice(y.shape[2] * y.shape[3], count, replace=False)
    rows, columns = np.divmod(chosen, y.shape[3])
    groups = group_count(node)
    taken = window.patches(x, rows, columns)  # (N, P, C, kh, kw)
    inputs = taken.reshape(len(x) * count, groups, -1).transpose(1, 0, 2)
    outputs = y[:, :, rows, columns].transpose(0, 2, 1).reshape(len(x) * count, groups, -1)
    return inputs, outputs.transpose(1, 0, 2)


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
