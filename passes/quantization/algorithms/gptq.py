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
    integers, scales, zeros = compensated(weight[None], moments[None], grid)
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


def compensated(weight: Floats, moments: Floats, levels: Levels) -> tuple[Floats, Floats, Floats]:
    """Round weights (groups, in, out) for inputs with second moments (groups, in, in).

    Returns:
        integers (groups, in, out), scales and zero points (groups, blocks, out).
    """
    weight, moments = weight.copy(), moments.copy()
    groups, depth, outputs = weight.shape
    diagonal = np.einsum("gii->gi", moments)  # a view
    level = diagonal.mean(axis=1, keepdims=True)
    diagonal[diagonal == 0] = 1
    diagonal += DAMPING * np.where(level > 0, level, 1)
    # Upper factor: row i is for what follows i.
    factor = np.linalg.cholesky(np.linalg.inv(moments)).transpose(0, 2, 1)
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
