"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .padding import Window, even, pad
from .table import Run, Site, op

_CONV = (None, functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (
    None,
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def _of_rank(functions: Sequence[Any], rank: int, site: Site) -> Any:
    if not 0 < rank < len(functions):
        raise site.refuse(f"{rank} spatial axes")
    return functions[rank]


@op("Conv")
def conv(site: Site) -> Run:
    """Padding that differs between the sides is applied before."""
    group = site.get("group", 1)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        window = Window.of(site, w.shape[2:])
        pairs = window.pairs(x.shape[2:])
        sides = even(pairs)
        if sides is None:
            x, sides = pad(x, pairs), (0,) * len(pairs)
        strides = window.strides
        if all(size == 1 for size in w.shape[2:]) and any(step > 1 for step in strides):
            x, sides, strides = _every(x, strides, sides), (0,) * len(strides), (1,) * len(strides)
        function = _of_rank(_CONV, w.ndim - 2, site)
        out: Tensor = function(x, w, b, strides, sides, window.dilations, group)
        return out

    return run


def _every(x: Tensor, strides: Sequence[int], sides: Sequence[int]) -> Tensor:
    """The elements that a kernel of one element sees: every `strides`-th one of each axis.

    For oneDNN's gradient of such a convolution writes past its memory where images have their
    channels last and fewer of them than a vector holds.
    """
    if any(sides):
        x = pad(x, tuple((side, side) for side in sides))
    return x[(slice(None), slice(None), *(slice(None, None, step) for step in strides))]


@op("ConvTranspose")
def conv_transpose(site: Site) -> Run:
    """All of it is computed and then cut: torch takes no padding that differs between the sides."""
    group = site.get("group", 1)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        n = w.ndim - 2
        window = Window.of(site, w.shape[2:])
        added = tuple(site.get("output_padding") or (0,) * n)
        sizes = [
            (size - 1) * window.strides[i] + window.extent(i) + added[i]
            for i, size in enumerate(x.shape[2:])
        ]
        cuts = _cuts(site, window, x.shape[2:], sizes)
        function = _of_rank(_TRANSPOSED, n, site)
        out: Tensor = function(x, w, None, window.strides, 0, 0, group, window.dilations)
        # `output_padding` is further elements at the end, which may lie beyond the full result.
        out = pad(out, tuple((-cut[0], added[i] - cut[1]) for i, cut in enumerate(cuts)))
        return out if b is None else out + b.view(-1, *(1,) * n)

    return run


def _cuts(
    site: Site, window: Window, given: Sequence[int], sizes: Sequence[int]
) -> list[tuple[int, int]]:
    """Elements to cut at both ends of each axis."""
    n = len(sizes)
    wanted = site.get("output_shape")
    same = window.auto.startswith("SAME")
    if wanted is None and same:
        wanted = [size * stride for size, stride in zip(given, window.strides, strict=True)]
    if wanted is None:
        pads = window.pads if window.auto == "NOTSET" else (0,) * (2 * n)
        return [(pads[i], pads[n + i]) for i in range(n)]
    cuts = []
    for have, want in zip(sizes, wanted[-n:], strict=True):
        total = max(have - want, 0)
        small, large = total // 2, total - total // 2
        cuts.append((small, large) if window.auto == "SAME_UPPER" else (large, small))
        if have < want:
            raise site.refuse(f"an output of {want} is larger than its windows reach")
    return cuts


@op("Gemm")
def gemm(site: Site) -> Run:
    """The sum alpha A B + beta C; the plain form of a linear layer goes to torch's own."""
    alpha, beta = site.get("alpha", 1.0), site.get("beta", 1.0)
    left, right = site.get("transA", 0), site.get("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        # A bias of one element is broadcast by ONNX, and refused by torch.
        fits = c is None or (c.ndim == 1 and len(c) == len(b))
        if alpha == 1 and beta == 1 and right and not left and fits:
            return functional.linear(a, b, c)
        product = (a.t() if left else a) @ (b.t() if right else b)
        product = product if alpha == 1 else alpha * product
        if c is None or beta == 0:
            return product
        return product + (c if beta == 1 else beta * c)

    return run


@op("MatMul")
def matmul(site: Site) -> Run:  # noqa: ARG001
    """Batched as in NumPy."""
    return torch.matmul


@op("Einsum")
def einsum(site: Site) -> Run:
    """The equation as it stands; letters that torch does not know are small ones in ONNX too."""
    equation = site.get("equation")
    return lambda *x: torch.einsum(equation, *x)
