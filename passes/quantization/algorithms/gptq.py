"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): later weights compensate errors of earlier ones.

With H = 2 X^T X of a layer's inputs, weights are rounded input by input, and each error is spread
over the weights not yet rounded along the Cholesky factor of the inverse of H. onnxruntime's own
GPTQ (1.32) reads the factor transposed, where it is zero, and so rounds to the nearest; its file
format is used, with these integers. H is summed in a stream: memory is that of H and of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model

from ...calibration.observation import observe
from ...graph.edit import initializer_array
from ...graph.queries import pair

#: Added to the diagonal of H, as a part of its mean.
DAMPING = 0.01
#: Rows that are rounded before their errors are applied to the following rows.
LAZY = 128


@dataclass(frozen=True)
class RoundingGrid:
    """Grid of integers that weights are rounded to.

    Attributes:
        bits: bits of a weight.
        block: neighbouring weights of an output that share a scale.
        symmetric: true where all zero points are the middle.
    """

    bits: int
    block: int
    symmetric: bool

    @property
    def largest(self) -> int:
        """Largest integer; the smallest is 0."""
        return int(2**self.bits - 1)

    def fit(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return scale and zero point of each output, (out,), for rows of a block: (block, out)."""
        low, high = np.minimum(rows.min(axis=0), 0), np.maximum(rows.max(axis=0), 0)
        middle = (self.largest + 1) // 2
        if self.symmetric:
            # The largest magnitude, whatever its sign, becomes the integer 0, as in onnxruntime.
            scale = np.where(high > -low, high, low) / -middle
        else:
            scale = (high - low) / self.largest
        scale = np.where(scale != 0, scale, 1.0).astype(np.float32).astype(np.float64)
        zero = np.full(scale.shape, float(middle)) if self.symmetric else np.round(-low / scale)
        return scale, zero


@dataclass(frozen=True)
class RoundedWeight:
    """A weight as integers.

    Attributes:
        integers: (in, out), 0 to the grid's largest.
        scales: (blocks, out), as are the zero points, `zeros`.
    """

    integers: NDArray[np.uint8]
    scales: Floats
    zeros: Floats


def round_products(
    model: Model, products: Sequence[ir.Node], data: Dataset, grid: RoundingGrid, ctx: Context
) -> dict[str, RoundedWeight]:
    """Round constant weights of MatMuls so that the products change least; return them by name."""
    own = [(x, w) for x, w in map(pair, products) if len(w.uses()) == 1]
    inputs = list(dict.fromkeys(x.name or "" for x, _ in own))
    moments = _second_moments(model, inputs, data, ctx)
    found: dict[str, RoundedWeight] = {}
    for source, value in own:
        weight = initializer_array(value).astype(np.float64)
        found[value.name or ""] = round_weight(weight, moments[source.name or ""], grid)
    return found


def round_weight(weight: Floats, moments: Floats, grid: RoundingGrid) -> RoundedWeight:
    """Round a weight (in, out) for inputs with these second moments (in, in)."""
    weight, moments = weight.copy(), moments.copy()
    depth = len(weight)
    unused = np.diag(moments) == 0
    moments[unused, unused] = 1
    moments[np.diag_indices(depth)] += DAMPING * np.diag(moments).mean()
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T  # upper: row i is for what follows i
    blocks = -(-depth // grid.block)
    integers = np.zeros(weight.shape, np.uint8)
    scales, zeros = np.ones((2, blocks, weight.shape[1]))
    for start in range(0, depth, LAZY):
        stop = min(start + LAZY, depth)
        errors = np.zeros((stop - start, weight.shape[1]))
        for i in range(start, stop):
            block = i // grid.block
            if i % grid.block == 0:
                # Rows beyond this lazy part have not got its errors yet: apply them now.
                following = weight[i : i + grid.block].copy()
                if stop < i + grid.block:
                    following[stop - i :] -= (
                        factor[start:i, stop : i + grid.block].T @ errors[: i - start]
                    )
                scales[block], zeros[block] = grid.fit(following)
            level = np.round(weight[i] / scales[block]) + zeros[block]
            integers[i] = np.clip(level, 0, grid.largest)
            error = weight[i] - (integers[i] - zeros[block]) * scales[block]
            errors[i - start] = error / factor[i, i]
            weight[i:stop] -= np.outer(factor[i, i:stop], errors[i - start])
        weight[stop:] -= factor[start:stop, stop:].T @ errors
    return RoundedWeight(integers, scales, zeros)


def write_rounded(graph: ir.Graph, rounded: dict[str, RoundedWeight], grid: RoundingGrid) -> int:
    """Write rounded weights into a graph of MatMulNBits and return their number."""
    written = 0
    for name, weight in rounded.items():
        tensors = graph.initializers
        packed = tensors.get(f"{name}_Q{grid.bits}")
        if packed is None or packed.const_value is None:
            continue
        depth, outputs = weight.integers.shape
        blocks = len(weight.scales)
        full = np.zeros((blocks * grid.block, outputs), np.uint8)
        full[:depth] = weight.integers
        if depth < len(full):  # padding represents zero
            full[depth:] = weight.zeros[-1].astype(np.uint8)
        new = {
            f"{name}_Q{grid.bits}": _packed(full.T.reshape(outputs, blocks, grid.block), grid.bits),
            f"{name}_scales": weight.scales.T,
            f"{name}_zero_points": _packed(weight.zeros.T.astype(np.uint8), grid.bits),
        }
        for key, array in new.items():
            value = tensors.get(key)
            if value is not None and value.const_value is not None:
                old = value.const_value.numpy()
                shaped = np.ascontiguousarray(array).astype(old.dtype).reshape(old.shape)
                value.const_value = ir.tensor(shaped, name=key)
        written += 1
    return written


def _packed(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack neighbours of the last axis into one byte, the first into the low bits."""
    if bits == 8:
        return values
    if values.shape[-1] % 2:
        values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, 1)])
    return np.asarray(values[..., ::2] | (values[..., 1::2] << 4), np.uint8)


def _second_moments(
    model: Model, tensors: Sequence[str], data: Dataset, ctx: Context
) -> dict[str, Floats]:
    """Return 2 X^T X of each tensor by the number of its rows: (features, features)."""
    sums: dict[str, Floats] = {}
    rows = dict.fromkeys(tensors, 0)
    for arrays in observe(model, tensors, data, ctx, "collecting inputs"):
        for name in tensors:
            flat = arrays[name].reshape(-1, arrays[name].shape[-1]).astype(np.float64)
            sums[name] = sums.get(name, 0.0) + 2 * flat.T @ flat
            rows[name] += len(flat)
    return {name: total / max(rows[name], 1) for name, total in sums.items()}
