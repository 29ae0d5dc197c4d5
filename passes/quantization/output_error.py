"""Float outputs of a model, and their squared error against those of the float model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.core.data import Batch, Floats
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run


def float_outputs(
    model: Model, batches: Sequence[Batch], config: SessionConfig
) -> list[list[Floats]]:
    """Return the model's float outputs, batch by batch."""
    session = build_session(model, config)
    return [
        [a.astype(np.float64) for a in run(session, batch.feeds).values() if a.dtype.kind == "f"]
        for batch in batches
    ]


def output_error(
    model: Model, batches: Sequence[Batch], reference: list[list[Floats]], config: SessionConfig
) -> float:
    """Return the squared error of the model's float outputs, relative to their size."""
    noise = size = 0.0
    for got, expected in zip(float_outputs(model, batches, config), reference, strict=True):
        for a, b in zip(got, expected, strict=True):
            scale = max(float(np.square(b).mean()), 1e-12)
            noise += float(np.square(a - b).mean()) / scale
            size += 1
    return noise / max(size, 1)
