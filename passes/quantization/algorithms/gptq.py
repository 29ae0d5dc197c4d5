"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): later weights compensate errors of earlier ones.

With H = 2 X^T X of a layer's inputs, weights are rounded input by input, and each error is spread
over the weights not yet rounded along the Cholesky factor of the inverse of H. onnxruntime's own
GPTQ (1.32) reads the factor transposed, where it is zero, and so rounds to the nearest; its file
format is used, with these integers. H is summed in a stream: memory is that of H and of one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from trimtab.core.context import Context
from trimtab.core.data import Floats, Floats32
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model

from ...calibration.observation import observe
from .block_weights import RoundedWeight, RoundingGrid

#: Added to the diagonal of H, as a part of its mean.
DAMPING = 0.01
#: Rows that are rounded before their errors are applied to the following rows.
LAZY = 128
#: Rows of a triangular matrix that is inverted as a whole.
TRIANGLE = 64


def round_products(
    model: Model,
    products: Mapping[str, tuple[str, Floats32]],
    data: Dataset,
    grid: RoundingGrid,
    ctx: Context,
) -> dict[str, RoundedWeight]:
    """Round constant weights of products so that the products change least.

    Args:
        model: model that the products are part of.
        products: name of the tensor that is multiplied, and weight (in, out), by any key.
        data: calibration data.
        grid: integers to round to.
        ctx: target and progress.
    """
    inputs = list(dict.fromkeys(source for source, _ in products.values()))
    moments = _second_moments(model, inputs, data, ctx)
    return {
        key: round_weight(weight.astype(np.float64), moments[source], grid)
        for key, (source, weight) in products.items()
    }


def round_weight(weight: Floats, moments: Floats, grid: RoundingGrid) -> RoundedWeight:
    """Round a weight (in, out) for inputs with these second moments (in, in)."""
    factor = inverse_factor(moments[None].copy())
    integers, scales, zeros = compensated(weight[None], factor, grid)
    return RoundedWeight(integers[0].astype(np.uint8), scales[0], zeros[0])


class Levels(Protocol):
    """Integers 0 to `largest` that weights are rounded to; `block` rows share scales."""

    @property
    def block(self) -> int:
        """Rows that share scales."""

    @property
    def largest(self) -> int:
        """Largest integer."""

    def fit(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return scales and zero points (..., out) of rows (..., block, out)."""


def inverse_factor(moments: Floats) -> Floats:
    """Return the upper triangular U, where U^T U is the inverse of the damped moments.

    With all rows and columns reversed, U is the inverse of the moments' lower Cholesky factor.

    Args:
        moments: (groups, in, in) positive semi-definite, overwritten.
    """
    diagonal = np.einsum("gii->gi", moments)  # a view
    level = diagonal.mean(axis=1, keepdims=True)
    diagonal[diagonal == 0] = 1
    diagonal += DAMPING * np.where(level > 0, level, 1)
    lower = moments[:, ::-1, ::-1]
    _factorize(lower)
    _invert_lower(lower)
    return moments


def _factorize(matrix: Floats) -> None:
    """Write the lower Cholesky factor of (groups, n, n) in its place, by blocks.

    LAPACK's takes two more matrices of that size, which is most of the memory of a whole search.
    """
    size = matrix.shape[-1]
    for start in range(0, size, LAZY):
        stop = min(start + LAZY, size)
        diagonal, below = matrix[:, start:stop, start:stop], matrix[:, stop:, start:stop]
        diagonal[:] = np.linalg.cholesky(diagonal)
        below[:] = below @ np.linalg.inv(diagonal).transpose(0, 2, 1)
        matrix[:, start:stop, stop:] = 0
        for row in range(stop, size, LAZY):
            rows = matrix[:, row : row + LAZY, start:stop]
            left = matrix[:, stop : row + LAZY, start:stop].transpose(0, 2, 1)
            matrix[:, row : row + LAZY, stop : row + LAZY] -= rows @ left


def _invert_lower(lower: Floats) -> None:
    """Invert lower triangular matrices (groups, n, n) in place, by blocks."""
    size = lower.shape[-1]
    if size <= TRIANGLE:
        lower[:] = np.linalg.inv(lower)
        return
    half = size // 2
    first, last, between = lower[:, :half, :half], lower[:, half:, half:], lower[:, half:, :half]
    _invert_lower(first)
    _invert_lower(last)
    between[:] = -(last @ between @ first)


def compensated(weight: Floats, factor: Floats, levels: Levels) -> tuple[Floats, Floats, Floats]:
    """Round weights (groups, in, out), each row's error made up for by those that follow.

    Args:
        weight: weights.
        factor: (groups, in, in) of the inputs' second moments, see `inverse_factor`.
        levels: integers to round to.

    Returns:
        integers (groups, in, out), scales and zero points (groups, blocks, out).
    """
    weight = weight.copy()
    groups, depth, outputs = weight.shape
    blocks = -(-depth // levels.block)
    integers = np.zeros(weight.shape)
    scales, zeros = np.ones((2, groups, blocks, outputs))
    for start in range(0, depth, LAZY):
        stop = min(start + LAZY, depth)
        errors = np.zeros((groups, stop - start, outputs))
        for i in range(start, stop):
            block = i // levels.block
            if i % levels.block == 0:
                # Rows beyond this lazy part have not got its errors yet: apply them now.
                end = i + levels.block
                following = weight[:, i:end].copy()
                if stop < end:
                    late = factor[:, start:i, stop:end].transpose(0, 2, 1)
                    following[:, stop - i :] -= late @ errors[:, : i - start]
                scales[:, block], zeros[:, block] = levels.fit(following)
            scale, zero = scales[:, block], zeros[:, block]
            integers[:, i] = np.clip(np.round(weight[:, i] / scale) + zero, 0, levels.largest)
            error = weight[:, i] - (integers[:, i] - zero) * scale
            errors[:, i - start] = error / factor[:, i, i, None]
            spread = factor[:, i, i:stop, None] * errors[:, None, i - start]
            weight[:, i:stop] -= spread
        weight[:, stop:] -= factor[:, start:stop, stop:].transpose(0, 2, 1) @ errors
    return integers, scales, zeros


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
