"""Functions of one element, and softmax."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .table import Run, Site, op

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
def plain(site: Site) -> Run:
    """No attributes at all."""
    return _PLAIN[site.op]


@op("LeakyRelu")
def leaky_relu(site: Site) -> Run:
    """Times alpha below zero."""
    alpha = site.get("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, alpha)


@op("PRelu")
def prelu(site: Site) -> Run:  # noqa: ARG001
    """A slope that broadcasts to x in NumPy's way, where torch's own wants one a channel."""
    return lambda x, slope: torch.where(x < 0, x * slope, x)


@op("ThresholdedRelu")
def thresholded_relu(site: Site) -> Run:
    """As it is above alpha, else 0."""
    alpha = site.get("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


@op("Elu")
def elu(site: Site) -> Run:
    """Below zero alpha (exp x - 1)."""
    alpha = site.get("alpha", 1.0)
    return lambda x: functional.elu(x, alpha)


@op("Celu")
def celu(site: Site) -> Run:
    """Below zero alpha (exp(x / alpha) - 1)."""
    alpha = site.get("alpha", 1.0)
    return lambda x: functional.celu(x, alpha)


@op("Selu")
def selu(site: Site) -> Run:
    """An Elu times gamma."""
    alpha = site.get("alpha", 1.6732632423543772)
    gamma = site.get("gamma", 1.0507009873554805)
    return lambda x: gamma * functional.elu(x, alpha)


@op("HardSigmoid")
def hard_sigmoid(site: Site) -> Run:
    """The line alpha x + beta, cut to 0 and 1."""
    alpha, beta = site.get("alpha", 0.2), site.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


@op("Gelu", "com.microsoft::Gelu")
def gelu(site: Site) -> Run:
    """Hendrycks and Gimpel, 2016; exact, or by tanh."""
    how = site.get("approximate", "none")
    return lambda x: functional.gelu(x, approximate=how)


@op("Clip")
def clip(site: Site) -> Run:
    """Limits are attributes before opset 11; a limit that is left out is none."""
    low, high = site.get("min"), site.get("max")
    if site.version < 11:
        return lambda x: x if low is None and high is None else torch.clamp(x, low, high)
    fixed = [site.constants.get(i) for i in (1, 2)]
    if all(f is not None or not site.has(i) for i, f in enumerate(fixed, 1)):
        # As Python numbers, for which torch has the faster kernel.
        low, high = (None if f is None else f.item() for f in fixed)
        return lambda x, *_: x if low is None and high is None else torch.clamp(x, low, high)

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        return x if low is None and high is None else torch.clamp(x, low, high)

    return run


@op("Softmax", "LogSoftmax")
def softmax(site: Site) -> Run:
    """Along an axis from opset 13 on; over all axes from `axis` on before."""
    functions = {"Softmax": functional.softmax, "LogSoftmax": functional.log_softmax}
    function = functions[site.op]
    axis = site.get("axis", -1 if site.version >= 13 else 1)
    if site.version >= 13:
        return lambda x: function(x, dim=axis)

    def run(x: Tensor) -> Tensor:
        if axis % x.ndim == x.ndim - 1:
            return function(x, dim=-1)
        return function(x.flatten(axis % x.ndim), dim=-1).view(x.shape)

    return run
