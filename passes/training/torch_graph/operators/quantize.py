"""QuantizeLinear and DequantizeLinear as fake quantization with learnable steps.

A quantized tensor is kept as floats with whole values, so that gradients pass: rounding has the
gradient of the identity (the straight-through estimator of Bengio et al., 2013). Differentiating
s (clamp(round(x / s) + z) - z) so gives the step-size gradient of Esser et al., "Learned Step Size
Quantization", 2020: round(x / s) - x / s inside of the range, its end outside.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .table import FUSED, NodeSpec, Run, op


class _Round(torch.autograd.Function):
    """Rounding of halves to even, as in onnxruntime, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        return grads[0]


class _ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


def lsq_step(scale: Tensor, count: int, largest: int) -> Tensor:
    """Scale the gradient of a step size by 1 / sqrt(N Q), as in the LSQ paper.

    Otherwise a step size would move as fast as all weights that share it together.
    """
    if not scale.requires_grad:
        return scale
    each = max(count // max(scale.numel(), 1), 1)
    made: Tensor = _ScaleGradient.apply(scale, 1 / math.sqrt(each * largest))  # type: ignore[no-untyped-call]
    return made


def spread(values: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Shape scales or zero points so that they broadcast to x: one, one a channel, or blocks."""
    if values.ndim == 0 or values.numel() == 1:
        return values.reshape(())
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return values.view([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def round_straight_through(x: Tensor) -> Tensor:
    """Round, with the gradient of the identity."""
    made: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return made


class _FakeQuantize(torch.autograd.Function):
    """s clamp(round(x / s), a, b) with the gradients above, in half the passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Limit, high: Limit) -> Tensor:
        ratio = x / scale
        whole = torch.round(ratio)
        kept = torch.clamp(whole, low, high)  # type: ignore[arg-type]
        inside = whole == kept
        learned = ctx.needs_input_grad[1]
        slope = torch.addcmul(kept, ratio, inside, value=-1) if learned else None
        ctx.save_for_backward(inside, slope)
        ctx.scale_shape = scale.shape
        return kept * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        inside, slope = ctx.saved_tensors
        learned = None if slope is None else (grads[0] * slope).sum_to_size(ctx.scale_shape)
        return grads[0] * inside, learned, None, None


Limit = float | Tensor


def fake_quantized(x: Tensor, scale: Tensor, low: Limit, high: Limit) -> Tensor:
    """Round a tensor to multiples of its step sizes, from `low` to `high` of them."""
    made: Tensor = _FakeQuantize.apply(x, scale, low, high)  # type: ignore[no-untyped-call]
    return made


def _steps(spec: NodeSpec, x: Tensor, scale: Tensor) -> Tensor:
    """Return step sizes that broadcast to x, with the gradients of LSQ."""
    count = x.numel() if spec.weight else x.numel() // max(len(x), 1)
    return _spread(spec, x, lsq_step(scale, count, _range(spec)[1]))


def _spread(spec: NodeSpec, x: Tensor, values: Tensor) -> Tensor:
    return spread(values, x, spec.get("axis", 1), spec.get("block_size", 0))


def _range(spec: NodeSpec) -> tuple[int, int]:
    return spec.integers or (0, 255)


@op(FUSED)
def fake_quantize(spec: NodeSpec) -> Run:
    """Compute a QuantizeLinear and its DequantizeLinear at once, which the plan fuses."""
    low, high = _range(spec)
    known = spec.constants.get(2)
    shift = None if known is None or known.numel() != 1 else float(known.item())

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        wide = _steps(spec, x, scale)
        if zero is None:
            return fake_quantized(x, wide, low, high)
        offset = _spread(spec, x, zero).to(x.dtype) if shift is None else shift
        return fake_quantized(x, wide, low - offset, high - offset)

    return run


@op("QuantizeLinear")
def quantize_linear(spec: NodeSpec) -> Run:
    """Compute clamp(round(x / s) + z), as a float."""
    low, high = _range(spec)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        q = round_straight_through(x / _steps(spec, x, scale))
        return torch.clamp(q if zero is None else q + _spread(spec, x, zero), low, high)

    return run


@op("DequantizeLinear")
def dequantize_linear(spec: NodeSpec) -> Run:
    """Compute (q - z) s; for a weight, which is kept as a float, Q and DQ at once."""
    if spec.weight:
        return fake_quantize(spec) if spec.integers is not None else lambda x, *_: x

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        wide = _steps(spec, x, scale)
        offset = None if zero is None else _spread(spec, x, zero)
        x = x.to(wide.dtype) if not x.is_floating_point() else x
        return (x if offset is None else x - offset) * wide

    return run
