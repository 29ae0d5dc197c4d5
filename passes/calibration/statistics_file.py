"""Files of calibration statistics, so that another choice of ranges needs no new calibration.

A file identifies its model and data; for any others it is refused.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.files import write_bytes
from trimtab.core.model import Model

from .histogram import Histogram
from .statistics import Statistics

FORMAT = 3
_FIELDS = ("lowest", "highest", "sum_lowest", "sum_highest", "rows", "empty", "unbounded")
_ANOTHER = "Name another file, or remove it to calibrate anew"


def save_statistics(
    path: Path, statistics: Mapping[str, Statistics], model: Model, data: Dataset
) -> None:
    """Write statistics as `.npz`, atomically.

    Raises:
        OutputError: the path cannot be written.
    """
    every = list(statistics.values())
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        key=np.array(json.dumps(_key(model, data))),
        tensors=np.array(list(statistics)),
        figures=np.array([[getattr(s, f) for f in _FIELDS] for s in every]),
        spans=np.array([[s.histogram.start, s.histogram.width] for s in every]),
        counts=np.array([s.histogram.counts for s in every]),
    )
    write_bytes(path, stream.getvalue())


def load_statistics(path: Path, model: Model, data: Dataset) -> dict[str, Statistics]:
    """Read a file that `save_statistics` wrote.

    Raises:
        DataError: the file has another format, or was made from another model or other data.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            key = json.loads(str(file["key"]))
            names = [str(name) for name in file["tensors"]]
            figures, spans, counts = file["figures"], file["spans"], file["counts"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        what = f"is not a file of calibration statistics ({type(error).__name__})"
        raise DataError(what, where=str(path), hint=_ANOTHER) from error
    for part, value in _key(model, data).items():
        if key.get(part) != value:
            raise DataError(f"was made for another {part}", where=str(path), hint=_ANOTHER)
    return {
        name: _statistics(row, Histogram(float(span[0]), float(span[1]), count))
        for name, row, span, count in zip(names, figures, spans, counts, strict=True)
    }


def _statistics(figures: NDArray[np.float64], histogram: Histogram) -> Statistics:
    lowest, highest, sum_lowest, sum_highest, rows, empty, unbounded = figures.tolist()
    sums = sum_lowest, sum_highest
    return Statistics(
        lowest, highest, *sums, int(rows), histogram, int(empty), unbounded=bool(unbounded)
    )


def _key(model: Model, data: Dataset) -> dict[str, str | int]:
    return {"format": FORMAT, "model": model.digest, "data": data.digest}
