"""Splits of the data: calibration and training, selection, and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError


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
    data: Dataset | Splits, evaluation: Dataset | None, *, seed: int = 0, same_data: bool = False
) -> Splits:
    """Split data: with one dataset all from it, with two calibration from the first.

    Args:
        data: calibration data, or all splits.
        evaluation: evaluation data; half of it selects, half of it confirms.
        seed: random seed.
        same_data: accept evaluation data that contain calibration data; the result is marked.

    Raises:
        DataError: both contain the same items, or there are too few.
    """
    if isinstance(data, Splits):
        return data
    if evaluation is None:
        shares = {"calibration": 0.4, "selection": 0.3, "test": 0.3}
        return Splits(**data.split(shares, seed=seed), shared=False)
    shared = data.overlaps(evaluation)
    if shared and not same_data:
        raise DataError(
            "calibration and evaluation data contain the same items",
            where=f"{data.spec} and {evaluation.spec}",
            hint="Give disjoint data, or --data alone and let it be split; --same-data takes them "
            "as they are and marks the result",
        )
    halves = evaluation.split({"selection": 0.5, "test": 0.5}, seed=seed)
    return Splits(data, **halves, shared=shared)
