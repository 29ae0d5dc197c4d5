"""Constants that are added or unpacked, under unique names."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

OptionalValue = ir.Value | None

_COUNTER = itertools.count()


def fresh_name(base: str) -> str:
    """Return a name that no file has."""
    return f"{base}#{next(_COUNTER)}"


def add_initializer(graph: ir.Graph, base: str, array: Any) -> ir.Value:
    """Add an initializer."""
    name = fresh_name(base)
    value = ir.val(name, const_value=ir.tensor(np.asarray(array), name=name))
    graph.register_initializer(value)
    return value


def unpack_nbits(
    packed: NDArray[np.generic],
    scales: NDArray[np.generic],
    zeros: NDArray[np.generic] | None,
    *,
    shape: tuple[int, int],
    bits: int,
    block: int,
) -> NDArray[np.float32]:
    """Unpack the weight (outputs, depth) of a MatMulNBits: blocks along depth, low nibble first."""
    outputs, depth = shape
    blocks = -(-depth // block)

    def to_integers(array: NDArray[np.generic]) -> NDArray[np.float32]:
        bytes_ = array.reshape(outputs, -1).view(np.uint8)
        if bits == 4:
            bytes_ = np.stack([bytes_ & 15, bytes_ >> 4], axis=-1).reshape(outputs, -1)
        return bytes_.astype(np.float32)

    integers = to_integers(packed).reshape(outputs, blocks, block)
    if zeros is None:
        zero: NDArray[np.float32] = np.full((outputs, blocks), 2 ** (bits - 1), np.float32)
    elif zeros.dtype == np.uint8:
        zero = to_integers(zeros)[:, :blocks]
    else:
        zero = zeros.astype(np.float32).reshape(outputs, blocks)
    scale = scales.astype(np.float32).reshape(outputs, blocks)
    floats = (integers - zero[:, :, None]) * scale[:, :, None]
    return np.ascontiguousarray(floats.reshape(outputs, -1)[:, :depth])
