"""The one judge of int8 candidates: what they keep of the float model's answers, and their loss.

The mean error of all outputs says little where decisions matter: a detector may lose every object
and keep a small error. So candidates are compared by `fidelity`, and where two keep enough, by the
loss, which is continuous. The float model runs once, its outputs stay in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.core.data import Array, Batch
from trimtab.core.dataset import Dataset
from trimtab.core.metric import Pooled
from trimtab.core.metrics.fidelity import fidelity_of
from trimtab.core.model import Model
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.runner import run_here
from trimtab.core.target import Target, usable_cpus

#: Part of the float model's answers that is kept by default.
PROMISED = 0.98
#: Part of the allowed loss that searches for what just suffices may use: they have seen the rows
#: that judge, and others show less.
MARGIN_OF_PROMISE = 0.5


@dataclass(frozen=True)
class Verdict:
    """Part of the float model's answers that a model keeps, and its loss.

    Attributes:
        kept: fidelity of the worst output, from 0 to 1.
        loss: squared error relative to the outputs' size, the mean of all outputs.
        interval: 95% interval of what is kept; None where it is unknown.
    """

    kept: float = 1.0
    loss: float = 0.0
    interval: tuple[float, float] | None = None

    def shortfall(self, promised: float = PROMISED) -> float:
        """Return what candidates are compared by, less is better: the loss, and what is missing.

        Halfway from the promise to 1 nothing is missing: finer differences of counted decisions
        could be reversed by other samples, and the loss tells more.
        """
        return max(0.0, (1 + promised) / 2 - self.kept) + self.loss


class Judge:
    """Judges candidates on samples that stay in memory with the float model's outputs.

    Args:
        reference: the float model.
        batches: samples that no candidate was made from.
        target: machine that it is for.
        engine: what runs the candidates, if not the target's own.
        also: samples that candidates were made from, which may show a loss but prove nothing: the
            lower of what is kept with and without them counts.
    """

    def __init__(
        self,
        reference: Model,
        batches: Dataset | Sequence[Batch],
        target: Target,
        engine: Engine | None = None,
        also: Sequence[Batch] = (),
    ) -> None:
        self.batches, self.also, self.target = batches, also, target
        self.engine: Engine | None = None
        self.expected = [*self._outputs(reference, None)]
        self.expected += self._outputs(reference, None, also=True) if also else []
        self.engine = engine  # of candidates alone
        some = any(self.expected)
        self.metric = fidelity_of(reference, self.expected) if some else None

    def of(
        self,
        model: Model,
        batches: int | None = None,
        matters: Callable[[Verdict], bool] | None = None,
    ) -> Verdict:
        """Return what a model keeps, on the first batches where a number of them is given.

        With `matters`, the samples that candidates were made from are run only where it is true of
        what the held-out ones say: they can but lower what is kept.
        """
        if self.metric is None:  # no output is a tensor
            return Verdict()
        verdict, scores = self._verdict(model, batches)
        alone = not self.also or batches is not None
        if alone or (matters is not None and not matters(verdict)):
            return verdict
        more, further = self._verdict(model, None, also=True)
        if not np.isfinite(more.loss):
            return more
        # What all rows show counts where they show less, and where they tell as much more surely.
        every = self._finish([*scores, *further])
        if every.value <= verdict.kept:
            return Verdict(every.value, verdict.loss, every.interval)
        return verdict

    def _verdict(
        self, model: Model, batches: int | None, *, also: bool = False
    ) -> tuple[Verdict, list[Any]]:
        """Return what is kept of the held-out samples, or of the others, and their scores."""
        assert self.metric is not None
        cut = len(self.expected) - len(self.also)
        expected = self.expected[cut:] if also else self.expected[:cut]
        scores, finite = [], True
        for got, truth in zip(self._outputs(model, batches, also=also), expected, strict=False):
            scores.append(self.metric.score(got, truth))
            finite = finite and all(_as_finite(got[name], truth[name]) for name in truth)
        if not finite:
            return Verdict(0.0, float("inf")), scores
        pooled = self._finish(scores)
        loss = float(np.mean([output.loss for output in pooled.outputs]))
        return Verdict(pooled.value, loss, pooled.interval), scores

    def _finish(self, scores: Sequence[Any]) -> Pooled:
        assert self.metric is not None
        assert self.metric.finish is not None
        return self.metric.finish(scores)

    def _outputs(
        self, model: Model, count: int | None, *, also: bool = False
    ) -> Iterator[Mapping[str, Array]]:
        """Yield the outputs of each batch that are tensors; of a stream with the model's states."""
        config = SessionConfig.for_evaluation(self.target, threads=usable_cpus())
        config = config.with_fusions_only(model)  # a large graph loads longer than it runs
        config = config if self.engine is None else self.engine.applied(config)
        if isinstance(self.batches, Dataset) and not also:
            found = (outputs for _, outputs in run_here(model, self.batches, config))
        else:
            session = build_session(model, config)
            batches = self.also if also else self.batches
            found = (run(session, batch.feeds) for batch in batches)
        for arrays in itertools.islice(found, count):
            yield {n: a for n, a in arrays.items() if isinstance(a, np.ndarray)}


def _as_finite(got: Array, truth: Array) -> bool:
    """Return whether floats are NaN or infinite only where those of the float model are."""
    if truth.dtype.kind != "f" or got.shape != truth.shape:
        return True
    return bool(np.array_equal(np.isfinite(got), np.isfinite(truth)))
