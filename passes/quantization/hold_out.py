"""Samples split between calibration and evaluation."""

from __future__ import annotations

import numpy as np

from trimtab.core.batches import fitting
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model

#: One of this many samples is held out where calibration would take all of them.
JUDGING_PART = 3
#: Bytes of inputs that are run at once; what they become on the way through takes many times that.
RUN_BYTES = 4 << 20
#: Samples that judge, those of the calibration among them where fewer are held out.
ENOUGH = 64


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


def judging_batches(
    model: Model, used: Dataset, held_out: Dataset, rows: int = 64
) -> tuple[Dataset | list[Batch], list[Batch]]:
    """Return batches of the held-out samples, and of others that judge as well where these are few.

    21 lines of text do not tell 0.98 from 0.9, least of all a search that tries many mixtures. The
    samples of the calibration are known to a model by its ranges alone, so a loss shows on them
    too.
    """
    rows = rows_at_once(held_out, rows)
    few = fitting(model, held_out, rows)
    if few.stream is not None:
        return few, []
    missing = ENOUGH - len(held_out)
    if missing <= 0 or used is held_out:
        return list(few), []
    return list(few), list(fitting(model, used.take(missing), rows))


def rows_at_once(data: Dataset, most: int, limit: int = RUN_BYTES) -> int:
    """Return how many rows to run at once, at most so many, fewer where rows are large.

    Args:
        data: the rows.
        most: largest number of them.
        limit: bytes of inputs that are run at once.
    """
    if data.stream is not None or data.source.batched or not len(data):
        return most
    first = next(iter(data.take(1).sized(1)))
    nbytes = sum(array.nbytes for array in first.feeds.values())
    return int(np.clip(limit // max(nbytes, 1), 1, most))
