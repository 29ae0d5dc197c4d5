"""QuantizeLinear and DequantizeLinear as fake quantization with learnable steps.

A quantized tensor is kept as floats that hold whole numbers, so gradients pass: rounding lets them
through as they are (the straight-through estimator of Bengio et al., 2013). Differentiating
s (clamp(round(x / s) + z) - z) so gives the step-size gradient of Esser et al., "Learned Step Size
Quantization", 2020: round(x / s) - x / s inside of the range, its end outside.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .table import FUSED, Run, Site, op


class _Round(torch.autograd.Function):
    """Round halves to even, as onnxruntime; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        return grads[0]


class _ScaleGradient(torch.autograd.Function):
    """The value as it is, its gradient multiplied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


def step(scale: Tensor, count: int, largest: int) -> Tensor:
    """A step size whose gradient is weighed by 1 / sqrt(N Q), after the LSQ paper.

    Without it the few steps would move as fast as all weights they serve together.
    """
    if not scale.requires_grad:
        return scale
    each = max(count // max(scale.numel(), 1), 1)
    made: Tensor = _ScaleGradient.apply(scale, 1 / math.sqrt(each * largest))  # type: ignore[no-untyped-call]
    return made


def spread(values: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Scales or zero points in a shape that broadcasts to x: one each, one a channel, blocks."""
    if values.ndim == 0 or values.numel() == 1:
        return values.reshape(())
    if block:
        repeated = values.repeat_interleave(block, axis)
        return repeated.narrow(axis, 0, x.shape[axis])
    return values.view([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def rounded(x: Tensor) -> Tensor:
    """Rounded, with the gradient of the identity."""
    made: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return made


class _Fake(torch.autograd.Function):
    """s clamp(round(x / s), a, b) and the gradients above, in half the passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Limit, high: Limit) -> Tensor:
        ratio = x / scale
        whole = torch.round(ratio)
        kept = torch.clamp(whole, low, high)  # type: ignore[arg-type]
        inside = whole == kept
        slope = None
        if ctx.needs_input_grad[1]:
            slope = torch.addcmul(kept, ratio, inside, value=-1)
        ctx.save_for_backward(inside, slope)
        ctx.scale_shape = scale.shape
        return kept * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        inside, slope = ctx.saved_tensors
        learned = None if slope is None else (grads[0] * slope).sum_to_size(ctx.scale_shape)
        return grads[0] * inside, learned, None, None


Limit = float | Tensor


def fake(x: Tensor, scale: Tensor, low: Limit, high: Limit) -> Tensor:
    """A tensor rounded to whole multiples of its steps, from `low` to `high` of them."""
    made: Tensor = _Fake.apply(x, scale, low, high)  # type: ignore[no-untyped-call]
    return made


def _pair(site: Site) -> Run:
    """Q and DQ with the same steps at once."""
    axis, block = site.get("axis", 1), site.get("block_size", 0)
    low, high = site.integers or (0, 255)
    known = site.constants.get(2)
    shift = None if known is None or known.numel() != 1 else float(known.item())

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        count = x.numel() if site.weight else x.numel() // max(len(x), 1)
        wide = spread(step(scale, count, high), x, axis, block)
        if zero is None:
            return fake(x, wide, low, high)
        if shift is not None:
            return fake(x, wide, low - shift, high - shift)
        offset = spread(zero, x, axis, block).to(x.dtype)
        return fake(x, wide, low - offset, high - offset)

    return run


@op(FUSED)
def fake_quantize(site: Site) -> Run:
    """No ONNX operator: what the plan makes of a QuantizeLinear and its DequantizeLinear."""
    return _pair(site)


@op("QuantizeLinear")
def quantize_linear(site: Site) -> Run:
    """clamp(round(x / s) + z), still a float."""
    axis, block = site.get("axis", 1), site.get("block_size", 0)
    low, high = site.integers or (0, 255)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        wide = spread(step(scale, x.numel() // max(len(x), 1), high), x, axis, block)
        q = rounded(x / wide)
        if zero is not None:
            q = q + spread(zero, x, axis, block)
        return torch.clamp(q, low, high)

    return run


@op("DequantizeLinear")
def dequantize_linear(site: Site) -> Run:
    """(q - z) s; of a weight, which is kept as the float it stands for, all of the rounding."""
    axis, block = site.get("axis", 1), site.get("block_size", 0)
    if site.weight and site.integers is None:
        return lambda x, *_: x
    if site.weight:
        return _pair(site)
    _, high = site.integers or (0, 255)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        wide = spread(step(scale, x.numel() // max(len(x), 1), high), x, axis, block)
        offset = None if zero is None else spread(zero, x, axis, block)
        x = x.to(wide.dtype) if not x.is_floating_point() else x
        return (x if offset is None else x - offset) * wide

    return run
