"""Layers of an int8 model: operators with their quantizers and constants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Floats, Floats32

from .grids import IntegerGrid

Kind = Literal["weight", "bias", "activation"]
#: Rounds in which factors of channels are fitted.
FITTING = 6
KINDS: tuple[Kind, ...] = ("weight", "bias", "activation")


@dataclass
class SquaredError:
    """Sums of the squared error of a tensor and of its float values."""

    noise: float = 0.0
    size: float = 0.0

    def add(self, got: NDArray[Any], exact: NDArray[Any]) -> None:
        """Add a run."""
        exact = exact.astype(np.float64, copy=False)
        self.noise += float(np.square(got - exact).sum())
        self.size += float(np.square(exact).sum())

    @property
    def relative(self) -> float:
        """Squared error relative to the tensor's own size."""
        return self.noise / self.size if self.size else float(self.noise > 0)


@dataclass(frozen=True)
class Activation:
    """Quantizer of an activation.

    Attributes:
        tensor: name of the quantized tensor.
        grid: integer grid; None where the range is found at run time.
    """

    tensor: str
    grid: IntegerGrid | None


@dataclass(frozen=True)
class Constant:
    """Weight or bias of the int8 model, and its float original.

    Attributes:
        name: name of the value.
        rounded: floats of the int8 model.
        exact: floats of the float model.
        grid: integer grid; None where it is not rounded, only different from the float model.
        channels: axis of the output channels, None where it is unknown.
        pairs: largest sums of two neighbouring exact weights by channel, where the integers are so
            small that no such sum of products exceeds 16 bits.
    """

    name: str
    rounded: Floats32
    exact: Floats32
    grid: IntegerGrid | None = None
    channels: int | None = None
    pairs: Floats | None = None

    @property
    def error(self) -> float:
        """Squared error, relative to the exact values."""
        return relative(self.rounded, self.exact)

    @property
    def rescaled_error(self) -> float:
        """Squared error with the best factor for each output channel and each input channel."""
        if self.exact.ndim < 2:
            return self.error
        moved = [np.moveaxis(a, self.channels or 0, 0) for a in (self.exact, self.rounded)]
        fitted, rounded = (a.astype(np.float64).reshape(*a.shape[:2], -1) for a in moved)
        for _ in range(FITTING):
            for over in ((1, 2), (0, 2)):
                size = np.square(fitted).sum(axis=over, keepdims=True)
                agreeing = (fitted * rounded).sum(axis=over, keepdims=True)
                fitted = fitted * np.divide(agreeing, size, out=np.ones_like(size), where=size > 0)
        return relative(rounded, fitted)


@dataclass
class DiagnosedLayer:
    """Operator and its quantizers.

    Attributes:
        name: name of the node, or of a graph input that is rounded.
        op: operator type; `Input` for a graph input.
        output: tensor that it is judged by, after the quantizer where there is one.
        activations: quantizers of its output; of its input where they are dynamic.
        weights: constants that it multiplies by.
        biases: constants that it adds.
    """

    name: str
    op: str
    output: str
    activations: list[Activation] = field(default_factory=list)
    weights: list[Constant] = field(default_factory=list)
    biases: list[Constant] = field(default_factory=list)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of quantizers that can be switched."""
        has = {"weight": self.weights, "bias": self.biases, "activation": self.activations}
        return tuple(kind for kind in KINDS if has[kind])


def relative(got: NDArray[Any], exact: NDArray[Any]) -> float:
    """Return the squared error, relative to the exact values."""
    error = SquaredError()
    error.add(got, exact)
    return error.relative
