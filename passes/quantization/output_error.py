"""Error of a model's float outputs against those of the float model, and changes that lower it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Batch, Floats
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target, usable_cpus

from ..base import Rewrite
from ..graph.declined import Declined

#: Reason of a change that was undone.
NOT_LOWER = "the output's error would not fall"


def float_outputs(model: Model, batches: Iterable[Batch], target: Target) -> list[list[Floats]]:
    """Return the float outputs of each batch, in double precision."""
    session = build_session(model, SessionConfig.for_evaluation(target, threads=usable_cpus()))
    return [
        [a.astype(np.float64) for a in run(session, b.feeds).values() if a.dtype.kind == "f"]
        for b in batches
    ]


class OutputDeviation:
    """Squared error of float outputs relative to their size, on samples that stay in memory."""

    def __init__(self, reference: Model, batches: Sequence[Batch], target: Target) -> None:
        self.batches, self.target = batches, target
        self.expected = float_outputs(reference, batches, target)

    def of(self, model: Model) -> float:
        """Return the error of a model, averaged over batches and outputs."""
        noise = size = 0.0
        outputs = float_outputs(model, self.batches, self.target)
        for got, expected in zip(outputs, self.expected, strict=True):
            for a, b in zip(got, expected, strict=True):
                scale = max(float(np.square(b).mean()), 1e-12)
                noise += float(np.square(a - b).mean()) / scale
                size += 1
        return noise / max(size, 1)


class LayerChanges:
    """Changes of a model's layers, each or all together kept only where the outputs' error falls.

    Attributes:
        model: a clone of the Q/DQ model, changed in place.
        kept: names of the changed layers.
        declined: layers left as they were, with reasons.
    """

    def __init__(
        self, model: Model, reference: Model, held_out: Sequence[Batch], target: Target
    ) -> None:
        self.model, self._error_of = model, OutputDeviation(reference, held_out, target).of
        self._first = self._error = self._error_of(model)
        self.kept: list[str] = []
        self.declined: list[Declined] = []

    def decline(self, layer: ir.Node, why: str = NOT_LOWER) -> None:
        """Note why a layer is left as it is."""
        self.declined.append(Declined(layer.name or "", why))

    def keep_or(self, undo: Callable[[], None], layer: ir.Node) -> None:
        """Keep the change of a layer that was just made if the error falls, else undo it."""
        error = self._error_of(self.model)
        if error < self._error:
            self._error = error
            self.kept.append(layer.name or "")
        else:
            undo()
            self.decline(layer)

    def keep_all_or(self, untouched: Model) -> None:
        """Go back to the untouched model unless all changes together lower the error."""
        self._error = self._error_of(self.model)
        if self._error >= self._first:
            self.declined += [Declined(name, NOT_LOWER) for name in self.kept]
            self.kept, self._error, self.model = [], self._first, untouched

    def result(self, verb: str, **notes: Any) -> Rewrite:
        """Return the model, with the kept layers under the name of what was done to them."""
        errors = {"error_before": self._first, "error_after": self._error}
        return Rewrite(self.model.ir, self.declined, {**notes, verb: self.kept, **errors})
