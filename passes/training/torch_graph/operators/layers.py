"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .padding import PaddedWindow, even, function_of_rank, pad
from .table import NodeSpec, Run, op, register_functions

_CONV = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = tuple(getattr(functional, f"conv_transpose{n}d") for n in (1, 2, 3))


@op("Conv")
def conv(spec: NodeSpec) -> Run:
    """Convolve; padding that differs between the sides is applied before."""
    group = spec.get("group", 1)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        window = PaddedWindow.of(spec, w.shape[2:])
        pairs = window.pairs(x.shape[2:])
        sides, strides = even(pairs), window.strides
        pointwise = all(size == 1 for size in w.shape[2:]) and any(step > 1 for step in strides)
        if sides is None or pointwise:
            x, sides = pad(x, pairs), (0,) * len(pairs)
        if pointwise:
            x, strides = _strided(x, strides), (1,) * len(strides)
        function = function_of_rank(_CONV, w.ndim - 2, spec)
        return function(x, w, b, strides, sides, window.dilations, group)

    return run


def _strided(x: Tensor, strides: Sequence[int]) -> Tensor:
    """Keep every `strides`-th element of each axis: those that a kernel of one element reads.

    oneDNN's own gradient of such a convolution writes past its memory where images are
    channels-last with fewer channels than a vector register.
    """
    return x[(slice(None), slice(None), *(slice(None, None, step) for step in strides))]


@op("ConvTranspose")
def conv_transpose(spec: NodeSpec) -> Run:
    """Convolve transposed, then crop: torch has no padding that differs between the sides."""
    group = spec.get("group", 1)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        n = w.ndim - 2
        window = PaddedWindow.of(spec, w.shape[2:])
        added = tuple(spec.get("output_padding") or (0,) * n)
        sizes = [
            (size - 1) * window.strides[i] + window.extent(i) + added[i]
            for i, size in enumerate(x.shape[2:])
        ]
        cuts = _crops(spec, window, x.shape[2:], sizes)
        function = function_of_rank(_TRANSPOSED, n, spec)
        out = function(x, w, None, window.strides, 0, 0, group, window.dilations)
        # `output_padding` is further elements at the end, which may lie beyond the full result.
        out = pad(out, tuple((-cut[0], added[i] - cut[1]) for i, cut in enumerate(cuts)))
        return out if b is None else out + b.view(-1, *(1,) * n)

    return run


def _crops(
    spec: NodeSpec, window: PaddedWindow, inputs: Sequence[int], sizes: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the elements to crop at both ends of each axis."""
    n = len(sizes)
    wanted = spec.get("output_shape")
    same = window.auto.startswith("SAME")
    if wanted is None and same:
        wanted = [size * stride for size, stride in zip(inputs, window.strides, strict=True)]
    if wanted is None:
        pads = window.pads if window.auto == "NOTSET" else (0,) * (2 * n)
        return [(pads[i], pads[n + i]) for i in range(n)]
    cuts = []
    for have, want in zip(sizes, wanted[-n:], strict=True):
        total = max(have - want, 0)
        small, large = total // 2, total - total // 2
        cuts.append((small, large) if window.auto == "SAME_UPPER" else (large, small))
        if have < want:
            raise spec.refuse(f"an output of {want} is larger than its windows reach")
    return cuts


@op("Gemm")
def gemm(spec: NodeSpec) -> Run:
    """Compute alpha A B + beta C; the special case of a linear layer by torch's own."""
    alpha, beta = spec.get("alpha", 1.0), spec.get("beta", 1.0)
    left, right = spec.get("transA", 0), spec.get("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        # ONNX broadcasts a bias of one element, torch does not.
        fits = c is None or (c.ndim == 1 and len(c) == len(b))
        if alpha == 1 and beta == 1 and right and not left and fits:
            return functional.linear(a, b, c)
        product = (a.t() if left else a) @ (b.t() if right else b)
        product = product if alpha == 1 else alpha * product
        if c is None or beta == 0:
            return product
        return product + (c if beta == 1 else beta * c)

    return run


register_functions({"MatMul": torch.matmul})


@op("Einsum")
def einsum(spec: NodeSpec) -> Run:
    """Compute an Einstein sum; torch reads ONNX's equations."""
    equation = spec.get("equation")
    return lambda *x: torch.einsum(equation, *x)
