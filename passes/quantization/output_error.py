"""Error of a model's float outputs against those of the float model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.core.data import Batch, Floats
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target, usable_cpus


class OutputDeviation:
    """Squared error of float outputs relative to their size, on samples that stay in memory."""

    def __init__(self, reference: Model, batches: Sequence[Batch], target: Target) -> None:
        self.batches = batches
        self.config = SessionConfig.for_evaluation(target, threads=usable_cpus())
        self.expected = self._outputs(reference)

    def of(self, model: Model) -> float:
        """Return the error of a model, averaged over batches and outputs."""
        noise = size = 0.0
        for got, expected in zip(self._outputs(model), self.expected, strict=True):
            for a, b in zip(got, expected, strict=True):
                scale = max(float(np.square(b).mean()), 1e-12)
                noise += float(np.square(a - b).mean()) / scale
                size += 1
        return noise / max(size, 1)

    def _outputs(self, model: Model) -> list[list[Floats]]:
        session = build_session(model, self.config)
        return [
            [a.astype(np.float64) for a in run(session, b.feeds).values() if a.dtype.kind == "f"]
            for b in self.batches
        ]
