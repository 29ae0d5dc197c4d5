"""A layer of an int8 model as the diagnosis sees it: an operator and its quantizers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from trimtab.core.data import Floats32

from .grids import Grid

Kind = Literal["weight", "bias", "activation"]
KINDS: tuple[Kind, ...] = ("weight", "bias", "activation")


@dataclass(frozen=True)
class Activation:
    """A quantizer of a tensor.

    Attributes:
        tensor: name of the tensor behind it.
        grid: None where the range is found while the model runs.
    """

    tensor: str
    grid: Grid | None


@dataclass(frozen=True)
class Constant:
    """A weight or bias as the int8 model holds it, and as the float model does.

    Attributes:
        name: of the value.
        rounded: what the int8 model computes with.
        exact: what the float model computes with.
        grid: None where it is not rounded, only other than in the float model.
        channels: axis of the output channels, None where that is not known.
    """

    name: str
    rounded: Floats32
    exact: Floats32
    grid: Grid | None = None
    channels: int | None = None

    @property
    def error(self) -> float:
        """Squared error, relative to the exact values."""
        return relative(self.rounded, self.exact)


@dataclass
class Layer:
    """An operator and its quantizers.

    Attributes:
        name: the node's name, or that of an input of the graph that is rounded.
        op: its operator; `Input` for an input of the graph.
        output: the tensor that it is judged by, behind the quantizer where one stands there.
        activations: quantizers of its result; of its input where they are dynamic.
        weights: what it multiplies by.
        biases: what it adds.
    """

    name: str
    op: str
    output: str
    activations: list[Activation] = field(default_factory=list)
    weights: list[Constant] = field(default_factory=list)
    biases: list[Constant] = field(default_factory=list)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What of it can be switched."""
        has = {"weight": self.weights, "bias": self.biases, "activation": self.activations}
        return tuple(kind for kind in KINDS if has[kind])


def relative(got: Floats32, exact: Floats32) -> float:
    """Squared error, relative to the exact values."""
    size = float(np.square(exact, dtype=np.float64).sum())
    noise = float(np.square(got.astype(np.float64) - exact).sum())
    return noise / size if size else float(noise > 0)
