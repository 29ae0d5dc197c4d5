"""Splits of the data: calibration and training, selection, and test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError
from trimtab.core.model import Model

from .loss import items_needed

#: Fewest rows that calibrate: of pictures and sequences, and of single vectors.
LEAST_ROWS, LEAST_VECTORS = 64, 256
_NAMES = ("calibration", "selection", "test")


@dataclass(frozen=True)
class Splits:
    """Splits of the data, disjoint unless `shared`.

    Attributes:
        calibration: split that passes calibrate and train on.
        selection: split that decides between candidates.
        test: split that the chosen one is confirmed on.
        shared: true where calibration data are among the others, as the user insisted.
    """

    calibration: Dataset
    selection: Dataset
    test: Dataset
    shared: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the source and the number of items of each split."""
        parts = {n: getattr(self, n) for n in ("calibration", "selection", "test")}
        return {
            name: {"data": part.spec, "items": len(part), "part": part.part}
            for name, part in parts.items()
        }


def split_data(
    data: Dataset | Splits,
    evaluation: Dataset | None,
    *,
    seed: int = 0,
    same_data: bool = False,
    shares: Sequence[float] | None = None,
    calibration: int | None = None,
) -> Splits:
    """Split data: with one dataset all from it, with two calibration from the first.

    Args:
        data: calibration data, or all splits.
        evaluation: evaluation data; half of it selects, half of it confirms.
        seed: random seed.
        same_data: accept evaluation data that contain calibration data; the result is marked.
        shares: weights of calibration, selection and test; of selection and test alone where there
            are evaluation data.
        calibration: rows that calibrate, where there is one dataset and no shares; 40% where None.

    Raises:
        DataError: both contain the same items, or there are too few.
        OptionError: as many shares as there are parts are needed.
    """
    if isinstance(data, Splits):
        return data
    if evaluation is None:
        rows = round(0.4 * len(data)) if calibration is None else calibration
        rest = max(1, len(data) - rows) / 2
        weights = _weights(shares, (max(1, rows), rest, rest), _NAMES)
        return Splits(**data.split(weights, seed=seed), shared=False)
    shared = data.overlaps(evaluation)
    if shared and not same_data:
        raise DataError(
            "calibration and evaluation data contain the same items",
            where=f"{data.spec} and {evaluation.spec}",
            hint="Give disjoint data, or --data alone and let it be split; --same-data takes them "
            "as they are and marks the result",
        )
    halves = evaluation.split(_weights(shares, (0.5, 0.5), _NAMES[1:]), seed=seed)
    return Splits(data, **halves, shared=shared)


def read_shares(text: str) -> tuple[float, ...]:
    """Read `20/40/40`, the weights of calibration, selection and test; or `50/50` of the last two.

    Raises:
        OptionError: it is neither.
    """
    try:
        shares = tuple(float(part) for part in text.split("/"))
    except ValueError:
        shares = ()
    if len(shares) not in {2, 3} or not all(0 < share < math.inf for share in shares):
        raise OptionError(
            f"{text!r} is not a valid split",
            where="--split",
            hint="Write the shares of calibration, selection and test as 20/40/40; with --eval "
            "those of selection and test as 50/50",
        )
    return shares


def calibration_rows(model: Model, rows: int, max_drop: float, *, trains: bool) -> int:
    """Return how many of the rows calibrate: as few as do, where the others are needed to decide.

    Ranges and least squares settle on some 64 rows of pictures, lines or sounds, each of which has
    many positions, and on 256 where a row is one vector. Training takes what there is.
    """
    share = round(0.4 * rows)
    if trains:
        return share
    ranks = [len(spec.shape) for spec in model.inputs if spec.shape is not None]
    least = LEAST_VECTORS if max(ranks, default=0) <= 2 else LEAST_ROWS
    return min(share, max(least, rows - items_needed(max_drop)))


def taken_of(splits: Splits, share: float, seed: int) -> Splits:
    """Return splits whose selection and test are a random share of theirs, where time is short."""

    def few(name: str, part: Dataset) -> Dataset:
        if len(part) < 2:
            return part
        kept = f"{share:.0%} of {name}"
        return part.split({kept: share, "rest": 1 - share}, seed=seed)[kept]

    selection, test = few("selection", splits.selection), few("test", splits.test)
    return replace(splits, selection=selection, test=test)


def _weights(
    shares: Sequence[float] | None, usual: Sequence[float], names: Sequence[str]
) -> dict[str, float]:
    """Return a weight for each part.

    Raises:
        OptionError: the shares are for other parts.
    """
    if shares is not None and len(shares) != len(names):
        raise OptionError(
            f"{len(shares)} shares are given for {', '.join(names)}",
            where="--split",
            hint="Three of --data alone, as in 20/40/40; two where --eval is given, as in 50/50",
        )
    return dict(zip(names, shares or usual, strict=True))
