"""Pooling. Windows that torch's own pools do not support are padded before."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .padding import AxisPadding, PaddedWindow, even, function_of_rank, pad
from .table import NodeSpec, Run, op, register_functions

_MAX = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVERAGE = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
_CONV = (functional.conv1d, functional.conv2d, functional.conv3d)


def _plain_sides(window: PaddedWindow, pairs: AxisPadding) -> tuple[int, ...] | None:
    """Return padding that torch supports, even and at most half of the kernel, else None."""
    sides = even(pairs)
    fit = sides and all(2 * s <= k for s, k in zip(sides, window.kernel, strict=True))
    return sides if fit else None


def _full(x: Tensor, window: PaddedWindow, pairs: AxisPadding) -> AxisPadding:
    """Extend padding by the room of windows that reach beyond the end."""
    beyond = window.overhang(x.shape[2:], pairs)
    return tuple((a, b + more) for (a, b), more in zip(pairs, beyond, strict=True))


@op("MaxPool")
def max_pool(spec: NodeSpec) -> Run:
    """Take the maximum of each window."""
    if spec.uses(1) or spec.get("storage_order", 0):
        raise spec.refuse("its indices are used")
    window = PaddedWindow.of(spec, spec.get("kernel_shape"))
    pool = function_of_rank(_MAX, len(window.kernel), spec)

    def run(x: Tensor) -> Tensor:
        pairs = window.pairs(x.shape[2:])
        sides = _plain_sides(window, pairs)
        if sides is None:
            # Integers do not get here: a pool of them is not trained.
            x = pad(x, _full(x, window, pairs), float("-inf"))
            return pool(x, window.kernel, window.strides, 0, window.dilations)
        return pool(x, window.kernel, window.strides, sides, window.dilations, window.ceil)

    return run


@op("AveragePool")
def average_pool(spec: NodeSpec) -> Run:
    """Take the mean of each window, with or without the padding."""
    include = bool(spec.get("count_include_pad", 0))
    window = PaddedWindow.of(spec, spec.get("kernel_shape"))
    pool = function_of_rank(_AVERAGE, len(window.kernel), spec)
    plain = all(d == 1 for d in window.dilations)

    def run(x: Tensor) -> Tensor:
        pairs = window.pairs(x.shape[2:])
        sides = _plain_sides(window, pairs) if plain else None
        if sides is None:
            return _general_average(x, window, pairs, include=include)
        return pool(x, window.kernel, window.strides, sides, window.ceil, include)

    return run


def _general_average(
    x: Tensor, window: PaddedWindow, pairs: AxisPadding, *, include: bool
) -> Tensor:
    """Divide sums by counts, both computed as convolutions with ones."""
    full = _full(x, window, pairs)
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    counted = pad(ones, pairs, 1.0 if include else 0.0)
    more = tuple((0, f[1] - p[1]) for f, p in zip(full, pairs, strict=True))
    flat = x.reshape(-1, 1, *x.shape[2:])
    conv: Callable[..., Tensor] = _CONV[len(window.kernel) - 1]
    kernel = torch.ones((1, 1, *window.kernel), dtype=x.dtype, device=x.device)
    counts = conv(pad(counted, more), kernel, None, window.strides, 0, window.dilations)
    sums = conv(pad(flat, full), kernel, None, window.strides, 0, window.dilations)
    means = sums / counts
    return means.reshape(*x.shape[:2], *means.shape[2:])


register_functions(
    {
        "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
        "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    }
)
