"""Pooling. Windows that torch's own pools do not support are padded before."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .operators import NodeSpec, Run, op
from .padding import PaddedWindow, Pairs, even, pad

_MAX = (None, functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVERAGE = (None, functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
_CONV = (None, functional.conv1d, functional.conv2d, functional.conv3d)


def _plain_sides(window: PaddedWindow, pairs: Pairs) -> tuple[int, ...] | None:
    """Return padding that torch supports, even and at most half of the kernel, else None."""
    sides = even(pairs)
    if sides is None or any(2 * s > k for s, k in zip(sides, window.kernel, strict=True)):
        return None
    return sides


def _full(x: Tensor, window: PaddedWindow, pairs: Pairs) -> Pairs:
    """Extend padding by the room of windows that reach beyond the end."""
    beyond = window.overhang(x.shape[2:], pairs)
    return tuple((a, b + more) for (a, b), more in zip(pairs, beyond, strict=True))


@op("MaxPool")
def max_pool(spec: NodeSpec) -> Run:
    """Take the maximum of each window."""
    if spec.uses(1) or spec.get("storage_order", 0):
        raise spec.refuse("its indices are used")
    window = PaddedWindow.of(spec, spec.get("kernel_shape"))
    pool = _MAX[len(window.kernel)] if len(window.kernel) < len(_MAX) else None
    if pool is None:
        raise spec.refuse(f"{len(window.kernel)} spatial axes")

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
    pool = _AVERAGE[len(window.kernel)] if len(window.kernel) < len(_AVERAGE) else None
    if pool is None:
        raise spec.refuse(f"{len(window.kernel)} spatial axes")
    plain = not any(d != 1 for d in window.dilations)

    def run(x: Tensor) -> Tensor:
        pairs = window.pairs(x.shape[2:])
        sides = _plain_sides(window, pairs) if plain else None
        if sides is None:
            return _general_average(x, window, pairs, include=include)
        return pool(x, window.kernel, window.strides, sides, window.ceil, include)

    return run


def _general_average(x: Tensor, window: PaddedWindow, pairs: Pairs, *, include: bool) -> Tensor:
    """Divide sums by counts, both computed as convolutions with ones."""
    full = _full(x, window, pairs)
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    counted = pad(ones, pairs, 1.0 if include else 0.0)
    more = tuple((0, f[1] - p[1]) for f, p in zip(full, pairs, strict=True))
    flat = x.reshape(-1, 1, *x.shape[2:])
    conv: Callable[..., Tensor] = _CONV[len(window.kernel)]  # type: ignore[assignment]
    kernel = torch.ones((1, 1, *window.kernel), dtype=x.dtype, device=x.device)
    counts = conv(pad(counted, more), kernel, None, window.strides, 0, window.dilations)
    sums = conv(pad(flat, full), kernel, None, window.strides, 0, window.dilations)
    means = sums / counts
    return means.reshape(*x.shape[:2], *means.shape[2:])


@op("GlobalAveragePool")
def global_average_pool(spec: NodeSpec) -> Run:  # noqa: ARG001
    """Take the mean of each channel."""
    return lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(spec: NodeSpec) -> Run:  # noqa: ARG001
    """Take the maximum of each channel."""
    return lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True)
