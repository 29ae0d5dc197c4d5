"""Samples split between calibration and evaluation."""

from __future__ import annotations

import numpy as np

from trimtab.core.dataset import Dataset

#: One of this many samples is held out where calibration would take all of them.
JUDGING_PART = 3


def hold_out(data: Dataset, samples: int) -> tuple[Dataset, Dataset]:
    """Return samples for calibration, and at most as many others for evaluation.

    A dataset too small for both gives up every third sample. A single item cannot be divided and
    serves for both.
    """
    if len(data) == 1:
        return data, data
    if len(data) < samples + max(samples // JUDGING_PART, 1):
        order = np.arange(len(data))
        judging = order % JUDGING_PART == JUDGING_PART - 1 if len(data) > 2 else order == 1
        used = data.select(data.positions[~judging], f"{data.part}, to calibrate on")
        return used.take(samples), data.select(data.positions[judging], f"{data.part}, held out")
    used = data.take(samples)
    rest = np.setdiff1d(data.positions, used.positions)
    return used, data.select(rest, f"{data.part}, held out").take(samples)
