"""Padding as ONNX describes it, for convolutions and pools of any rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from .table import Site

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """A sliding window of n spatial axes.

    Attributes:
        kernel: sizes.
        strides: steps.
        dilations: distances between neighbours.
        pads: begins, then ends; empty where `auto` decides.
        auto: auto_pad of ONNX.
        ceil: whether a last window may hang over the end.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto: str
    ceil: bool

    @classmethod
    def of(cls, site: Site, kernel: Sequence[int]) -> Window:
        """The window of a node whose kernel has these sizes."""
        n = len(kernel)
        ones, none = (1,) * n, (0,) * (2 * n)
        return cls(
            tuple(kernel),
            tuple(site.get("strides") or ones),
            tuple(site.get("dilations") or ones),
            tuple(site.get("pads") or none),
            site.get("auto_pad", "NOTSET") or "NOTSET",
            bool(site.get("ceil_mode", 0)),
        )

    def extent(self, axis: int) -> int:
        """Elements from the first to the last that the kernel touches."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def pairs(self, sizes: Sequence[int]) -> Pairs:
        """(before, after) for each axis of an input of these sizes."""
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

    def overhang(self, sizes: Sequence[int], pairs: Pairs) -> tuple[int, ...]:
        """How far the last window of `ceil` reaches beyond the padded end, for each axis."""
        beyond = []
        for axis, (size, (before, after)) in enumerate(zip(sizes, pairs, strict=True)):
            span, stride = size + before + after - self.extent(axis), self.strides[axis]
            count = (math.ceil(span / stride) if self.ceil else span // stride) + 1
            # A window that would start in the padding after the end is none.
            if self.ceil and (count - 1) * stride >= size + before:
                count -= 1
            beyond.append(max((count - 1) * stride - span, 0))
        return tuple(beyond)


def even(pairs: Pairs) -> tuple[int, ...] | None:
    """The padding of each axis where it is the same on both sides and none is negative."""
    if all(before == after >= 0 for before, after in pairs):
        return tuple(before for before, _ in pairs)
    return None


def pad(x: Tensor, pairs: Pairs, value: float = 0.0) -> Tensor:
    """Pad the last axes; torch counts them from the last to the first."""
    if not any(side for pair in pairs for side in pair):
        return x
    flat = [side for pair in reversed(pairs) for side in pair]
    return functional.pad(x, flat, value=value)
