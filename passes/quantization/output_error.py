"""Error of a model's float outputs against those of the float model, and changes that lower it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array, Batch, Floats
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.runner import run_here
from trimtab.core.target import Target, usable_cpus

from ..base import Rewrite
from ..graph.declined import Declined

#: Reason of a change that was undone.
NOT_LOWER = "the output's error would not fall"


def float_outputs(model: Model, batches: Iterable[Batch], target: Target) -> list[list[Floats]]:
    """Return the float outputs of each batch, in double precision."""
    return [
        [array.astype(np.float64) for array in arrays if array.dtype.kind == "f"]
        for arrays in _outputs(model, batches, target)
    ]


def _outputs(model: Model, batches: Iterable[Batch], target: Target) -> list[list[Array]]:
    """Return the tensors among the outputs of each batch; of a stream with the model's states."""
    config = SessionConfig.for_evaluation(target, threads=usable_cpus())
    if isinstance(batches, Dataset):
        found = (outputs.values() for _, outputs in run_here(model, batches, config))
    else:
        session = build_session(model, config)
        found = (run(session, batch.feeds).values() for batch in batches)
    return [[a for a in arrays if isinstance(a, np.ndarray)] for arrays in found]


class OutputDeviation:
    """Squared error of outputs relative to their size, on samples that stay in memory.

    Of outputs of other types, such as classes, it is the share of elements that differ.
    """

    def __init__(
        self, reference: Model, batches: Dataset | Sequence[Batch], target: Target
    ) -> None:
        self.batches, self.target = batches, target
        self.expected = _outputs(reference, batches, target)

    def of(self, model: Model) -> float:
        """Return the error of a model, averaged over batches and outputs."""
        outputs = _outputs(model, self.batches, self.target)
        errors = [
            _error(a, b)
            for got, expected in zip(outputs, self.expected, strict=True)
            for a, b in zip(got, expected, strict=True)
            if b.size
        ]
        return sum(errors) / max(len(errors), 1)


def _error(got: Array, expected: Array) -> float:
    if got.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind != "f":
        return float((got != expected).mean())
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)):
        return float("inf")
    if not finite.any():
        return 0.0
    a, b = got[finite].astype(np.float64), expected[finite].astype(np.float64)
    return float(np.square(a - b).mean()) / max(float(np.square(b).mean()), 1e-12)


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
        errors = {
            "squared_relative_error_before": self._first,
            "squared_relative_error_after": self._error,
        }
        return Rewrite(self.model.ir, self.declined, {**notes, verb: self.kept, **errors})
