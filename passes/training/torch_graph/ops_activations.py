"""Elementwise functions of one operand, and softmax."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .operators import NodeSpec, Run, op

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "HardSwish": functional.hardswish,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Mish": functional.mish,
    "Erf": torch.erf,
    "Neg": torch.neg,
    "Abs": torch.abs,
    "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,  # halves to even, as ONNX wants
    "Sign": torch.sign,
    "Not": torch.logical_not,
    "IsNaN": torch.isnan,
}


@op(*_PLAIN)
def plain(spec: NodeSpec) -> Run:
    """Apply a function without attributes."""
    return _PLAIN[spec.op]


@op("LeakyRelu")
def leaky_relu(spec: NodeSpec) -> Run:
    """Multiply by alpha below zero."""
    alpha = spec.get("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, alpha)


@op("PRelu")
def prelu(spec: NodeSpec) -> Run:  # noqa: ARG001
    """Multiply by a slope below zero, which broadcasts as in NumPy, unlike torch's own."""
    return lambda x, slope: torch.where(x < 0, x * slope, x)


@op("ThresholdedRelu")
def thresholded_relu(spec: NodeSpec) -> Run:
    """Set values up to alpha to 0."""
    alpha = spec.get("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


@op("Elu")
def elu(spec: NodeSpec) -> Run:
    """Compute alpha (exp x - 1) below zero."""
    alpha = spec.get("alpha", 1.0)
    return lambda x: functional.elu(x, alpha)


@op("Celu")
def celu(spec: NodeSpec) -> Run:
    """Compute alpha (exp(x / alpha) - 1) below zero."""
    alpha = spec.get("alpha", 1.0)
    return lambda x: functional.celu(x, alpha)


@op("Selu")
def selu(spec: NodeSpec) -> Run:
    """Multiply an Elu by gamma."""
    alpha = spec.get("alpha", 1.6732632423543772)
    gamma = spec.get("gamma", 1.0507009873554805)
    return lambda x: gamma * functional.elu(x, alpha)


@op("HardSigmoid")
def hard_sigmoid(spec: NodeSpec) -> Run:
    """Clip alpha x + beta to 0 and 1."""
    alpha, beta = spec.get("alpha", 0.2), spec.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


@op("Gelu", "com.microsoft::Gelu")
def gelu(spec: NodeSpec) -> Run:
    """Compute Gelu, exactly or by tanh (Hendrycks and Gimpel, 2016)."""
    approximate = spec.get("approximate", "none")
    return lambda x: functional.gelu(x, approximate=approximate)


@op("Clip")
def clip(spec: NodeSpec) -> Run:
    """Clip to limits, which are attributes before opset 11 and inputs since; both are optional."""
    low, high = spec.get("min"), spec.get("max")
    if spec.version < 11:
        return lambda x: x if low is None and high is None else torch.clamp(x, low, high)
    fixed = [spec.constants.get(i) for i in (1, 2)]
    if all(f is not None or not spec.has(i) for i, f in enumerate(fixed, 1)):
        # As Python numbers, for which torch has the faster kernel.
        low, high = (None if f is None else f.item() for f in fixed)
        return lambda x, *_: x if low is None and high is None else torch.clamp(x, low, high)

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        return x if low is None and high is None else torch.clamp(x, low, high)

    return run


@op("Softmax", "LogSoftmax")
def softmax(spec: NodeSpec) -> Run:
    """Normalise along an axis since opset 13; over all axes from `axis` on before."""
    functions = {"Softmax": functional.softmax, "LogSoftmax": functional.log_softmax}
    function = functions[spec.op]
    axis = spec.get("axis", -1 if spec.version >= 13 else 1)
    if spec.version >= 13:
        return lambda x: function(x, dim=axis)

    def run(x: Tensor) -> Tensor:
        if axis % x.ndim == x.ndim - 1:
            return function(x, dim=-1)
        return function(x.flatten(axis % x.ndim), dim=-1).view(x.shape)

    return run
