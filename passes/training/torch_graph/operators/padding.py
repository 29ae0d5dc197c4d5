"""Padding as ONNX describes it, for convolutions and pools of any rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from .table import NodeSpec

AxisPadding = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PaddedWindow:
    """Padded sliding window of n spatial axes.

    Attributes:
        kernel: kernel sizes.
        strides: strides.
        dilations: dilations.
        pads: begins, then ends; empty where `auto` decides.
        auto: auto_pad of ONNX.
        ceil: ceil_mode of ONNX: the last window may reach beyond the end.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto: str
    ceil: bool

    @classmethod
    def of(cls, spec: NodeSpec, kernel: Sequence[int]) -> PaddedWindow:
        """Read the window of a node whose kernel has these sizes."""
        n = len(kernel)
        ones, none = (1,) * n, (0,) * (2 * n)
        return cls(
            tuple(kernel),
            tuple(spec.get("strides") or ones),
            tuple(spec.get("dilations") or ones),
            tuple(spec.get("pads") or none),
            spec.get("auto_pad", "NOTSET") or "NOTSET",
            bool(spec.get("ceil_mode", 0)),
        )

    def extent(self, axis: int) -> int:
        """Return the extent of the dilated kernel along an axis."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def pairs(self, sizes: Sequence[int]) -> AxisPadding:
        """Return the padding (before, after) of each axis of an input of these sizes."""
        n = len(self.kernel)
        if self.auto == "VALID":
            return ((0, 0),) * n
        if self.auto.startswith("SAME"):
            return tuple(self._same(axis, size) for axis, size in enumerate(sizes))
        return tuple((self.pads[i], self.pads[n + i]) for i in range(n))

    def _same(self, axis: int, size: int) -> tuple[int, int]:
        stride = self.strides[axis]
        total = max((math.ceil(size / stride) - 1) * stride + self.extent(axis) - size, 0)
        small, large = total // 2, total - total // 2
        return (small, large) if self.auto == "SAME_UPPER" else (large, small)

    def overhang(self, sizes: Sequence[int], pairs: AxisPadding) -> tuple[int, ...]:
        """Return the elements that the last window reaches beyond the padded end, by axis."""
        beyond = []
        for axis, (size, (before, after)) in enumerate(zip(sizes, pairs, strict=True)):
            span, stride = size + before + after - self.extent(axis), self.strides[axis]
            count = (math.ceil(span / stride) if self.ceil else span // stride) + 1
            # ONNX drops a window that would start in the padding after the end.
            if self.ceil and (count - 1) * stride >= size + before:
                count -= 1
            beyond.append(max((count - 1) * stride - span, 0))
        return tuple(beyond)


def even(pairs: AxisPadding) -> tuple[int, ...] | None:
    """Return the padding of each axis where both sides are equal and none is negative."""
    if all(before == after >= 0 for before, after in pairs):
        return tuple(before for before, _ in pairs)
    return None


def pad(x: Tensor, pairs: AxisPadding, value: float = 0.0) -> Tensor:
    """Pad the last axes; torch counts them from the last to the first."""
    if not any(side for pair in pairs for side in pair):
        return x
    flat = [side for pair in reversed(pairs) for side in pair]
    return functional.pad(x, flat, value=value)


def function_of_rank(
    functions: Sequence[Callable[..., Tensor]], rank: int, spec: NodeSpec
) -> Callable[..., Tensor]:
    """Return the function for a number of spatial axes, from one on."""
    if not 0 < rank <= len(functions):
        raise spec.refuse(f"{rank} spatial axes")
    return functions[rank - 1]
