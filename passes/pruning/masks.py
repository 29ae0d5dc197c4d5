"""Masks of the weights to prune, as pure functions of arrays: an exact number of the smallest.

Ties are broken by position, the first goes first, so that the same weights give the same zeros on
every machine.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Array
from trimtab.core.errors import OptionError

Mask = NDArray[np.bool_]


def parse_n_m(pattern: str) -> tuple[int, int] | None:
    """Parse `"2:4"` as (2, 4): two of four stay. Return None for another kind of pattern.

    Raises:
        OptionError: a pair that keeps none or all.
    """
    match = re.fullmatch(r"(\d+):(\d+)", pattern)
    if match is None:
        return None
    n, m = int(match[1]), int(match[2])
    if not 0 < n < m:
        raise OptionError(
            f"{pattern!r} is not a valid pattern: n of every m weights stay, 0 < n < m",
            where="pattern",
        )
    return n, m


def count_for_share(share: float, total: int) -> int:
    """Return a share of `total` as the nearest whole number, halves upwards."""
    return int(np.floor(share * total + 0.5))


def smallest(scores: Array, count: int) -> Mask:
    """Return a mask, true at the `count` smallest scores; NaN is never small. Any shape, O(n)."""
    flat = np.where(np.isnan(scores), np.inf, scores).reshape(-1)
    if count <= 0:
        return np.zeros(scores.shape, bool)
    limit = np.partition(flat, count - 1)[count - 1]
    mask = flat < limit
    tied = np.flatnonzero(flat == limit)
    mask[tied[: count - int(mask.sum())]] = True
    return np.asarray(mask.reshape(scores.shape))


def n_m_mask(weight: Array, n: int, m: int, axis: int) -> Mask:
    """Return a mask, true at the m - n smallest magnitudes of every m neighbours along `axis`."""
    groups = np.moveaxis(weight, axis, -1)
    shape = groups.shape
    scores = np.abs(groups.astype(np.float32)).reshape(-1, m)
    scores = np.where(np.isnan(scores), np.inf, scores)
    drop = np.argsort(scores, axis=1, kind="stable")[:, : m - n]
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, drop, values=True, axis=1)
    return np.moveaxis(mask.reshape(shape), -1, axis)


def block_scores(weight: Array, block: tuple[int, int], axes: tuple[int, int], norm: str) -> Array:
    """Score each block of (outputs, inputs): mean |w| for l1, root mean square for l2.

    Means, so that a threshold is in units of a weight: (outputs / a, inputs / b, other axes) for a
    block of a x b.
    """
    moved = np.moveaxis(weight.astype(np.float32), axes, (0, 1))
    (outputs, inputs), (a, b) = moved.shape[:2], block
    split = moved.reshape(outputs // a, a, inputs // b, b, *moved.shape[2:])
    if norm == "l2":
        return np.asarray(np.sqrt(np.square(split).mean(axis=(1, 3))))
    return np.asarray(np.abs(split).mean(axis=(1, 3)))


def expand_blocks(mask: Mask, block: tuple[int, int], axes: tuple[int, int]) -> Mask:
    """Expand a mask of blocks, as `block_scores` orders them, to weights."""
    expanded = mask.repeat(block[0], axis=0).repeat(block[1], axis=1)
    return np.moveaxis(expanded, (0, 1), axes)
