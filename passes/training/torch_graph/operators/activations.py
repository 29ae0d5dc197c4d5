"""Elementwise functions of one operand, and softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .table import NodeSpec, Run, op, register_functions

register_functions(
    {
        "Relu": torch.relu,
        # The slope broadcasts as in NumPy, unlike that of torch's own.
        "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
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
)

#: Functions of an operand and of `alpha`, and the default of `alpha`.
_ALPHA: dict[str, tuple[Callable[[Tensor, float], Tensor], float]] = {
    "LeakyRelu": (functional.leaky_relu, 0.01),
    "ThresholdedRelu": (lambda x, alpha: torch.where(x > alpha, x, torch.zeros_like(x)), 1.0),
    "Elu": (functional.elu, 1.0),
    "Celu": (functional.celu, 1.0),
}


@op(*_ALPHA)
def alpha_activation(spec: NodeSpec) -> Run:
    """Apply a function with one parameter."""
    function, default = _ALPHA[spec.op]
    alpha = spec.get("alpha", default)
    return lambda x: function(x, alpha)


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
        return lambda x: _clamp(x, low, high)
    fixed = [spec.constants.get(i) for i in (1, 2)]
    if all(f is not None or not spec.has(i) for i, f in enumerate(fixed, 1)):
        # As Python numbers, for which torch has the faster kernel.
        low, high = (None if f is None else f.item() for f in fixed)
        return lambda x, *_: _clamp(x, low, high)
    return _clamp


def _clamp(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    return x if low is None and high is None else torch.clamp(x, low, high)


@op("Softmax", "LogSoftmax")
def softmax(spec: NodeSpec) -> Run:
    """Normalise along an axis since opset 13; over all axes from `axis` on before."""
    function = functional.softmax if spec.op == "Softmax" else functional.log_softmax
    axis = spec.get("axis", -1 if spec.version >= 13 else 1)
    if spec.version >= 13:
        return lambda x: function(x, dim=axis)

    def run(x: Tensor) -> Tensor:
        if axis % x.ndim == x.ndim - 1:
            return function(x, dim=-1)
        return function(x.flatten(axis % x.ndim), dim=-1).view(x.shape)

    return run
