"""Options of a quantization to int8 that decide where Q/DQ pairs stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.core.target import IntType


@dataclass(frozen=True)
class Scheme:
    """Options of a quantization.

    Attributes:
        activation: integer type of activations; that of weights is `weight`.
        per_channel: one scale for each output channel of a weight.
        reduce_range: weights use 7 bits.
        symmetric: zero points of activations are zero.
        ops: operator types to quantize, except the nodes of the names in `exclude`.
        wide: names of activations that have 16 bits.
        inputs_only: round only inputs of products and keep biases float, as TensorRT requires:
            it refuses an int32 bias, and a pair after a product keeps it from fusing the Relu and
            the residual Add there.
        power_of_two: scales are powers of two.
    """

    activation: IntType
    weight: IntType
    per_channel: bool
    reduce_range: bool
    symmetric: bool
    ops: frozenset[str]
    exclude: Sequence[str] = ()
    wide: Sequence[str] = ()
    inputs_only: bool = False
    power_of_two: bool = False
