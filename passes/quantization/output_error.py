"""Float outputs of a model, and changes of its layers that are kept where the outputs gain."""

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
from .judge import Judge

#: Reason of a change that was undone.
NOT_LOWER = "the output's error would not fall"


def float_outputs(model: Model, batches: Iterable[Batch], target: Target) -> list[list[Floats]]:
    """Return the float outputs of each batch, in double precision."""
    session = build_session(model, SessionConfig.for_evaluation(target, threads=usable_cpus()))
    return [
        [a.astype(np.float64) for a in arrays if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
        for arrays in (run(session, batch.feeds).values() for batch in batches)
    ]


class LayerChanges:
    """Changes of a model's layers, each or all together kept only where the judge sees a gain.

    Attributes:
        model: a clone of the Q/DQ model, changed in place.
        kept: names of the changed layers.
        declined: layers left as they were, with reasons.
    """

    def __init__(
        self, model: Model, reference: Model, held_out: Sequence[Batch], target: Target
    ) -> None:
        self.model, self._judge = model, Judge(reference, held_out, target).of
        self._first = self._best = self._judge(model)
        self.kept: list[str] = []
        self.declined: list[Declined] = []

    def decline(self, layer: ir.Node, why: str = NOT_LOWER) -> None:
        """Note why a layer is left as it is."""
        self.declined.append(Declined(layer.name or "", why))

    def keep_or(self, undo: Callable[[], None], layer: ir.Node) -> None:
        """Keep the change of a layer that was just made if the outputs gain, else undo it."""
        verdict = self._judge(self.model)
        if verdict.shortfall() < self._best.shortfall():
            self._best = verdict
            self.kept.append(layer.name or "")
        else:
            undo()
            self.decline(layer)

    def keep_all_or(self, untouched: Model) -> None:
        """Go back to the untouched model unless the outputs gain by all changes together."""
        self._best = self._judge(self.model)
        if self._best.shortfall() >= self._first.shortfall():
            self.declined += [Declined(name, NOT_LOWER) for name in self.kept]
            self.kept, self._best, self.model = [], self._first, untouched

    def result(self, verb: str, **notes: Any) -> Rewrite:
        """Return the model, with the kept layers under the name of what was done to them."""
        errors = {
            "squared_relative_error_before": self._first.loss,
            "squared_relative_error_after": self._best.loss,
            "fidelity_before": self._first.kept,
            "fidelity_after": self._best.kept,
        }
        return Rewrite(self.model.ir, self.declined, {**notes, verb: self.kept, **errors})
