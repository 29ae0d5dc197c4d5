"""Quality of a candidate on the items that confirm, and on all of them where they are few."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from trimtab.core.batches import fitting
from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.metric import METRICS, Quality, evaluate, fitted
from trimtab.core.metrics.metric import ROUNDING
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import usable_cpus
from trimtab.passes.quantization.judge import Judge

from ..evaluator import Evaluator
from ..loss import EXCESS, RISK, LossEvidence, loss_evidence, resolves
from ..ranking import item_drops, loses_too_much
from ..reporting.evidence import TRAINS
from ..result import Result

#: The two ways in which the items that confirm are named.
TEST, TOGETHER = "test split", "selection and test split together"

#: Most calibration rows on which answers are compared with the original's.
CALIBRATION_ROWS = 1024
#: Most rows on which outputs are compared number by number.
COMPARED_ROWS = 32
#: Squared relative error of outputs, 0.3% RMS, below which nobody asks for a proof: weights in
#: float16, which the field takes for the same model, leave ten times as much in a YOLOX-nano.
SAME_LOSS = 1e-5


@dataclass(frozen=True, eq=False)
class QualityJudge:
    """Judge of the quality of candidates that the search has chosen.

    Where the items resolve the allowed drop, the test split decides, which nothing was chosen on.
    Where they are too few, both splits decide together: a candidate is taken where its loss there
    is within the allowed drop and the odds of a loss of half as much again are small. As it was
    chosen on some of these items, the n-th candidate that is looked at has the n-th part of them.

    Attributes:
        evaluator: evaluator of the search.
        original: the float model, with its quality on both splits.
        rows_in_time: rows of which time allows to compare answers with the original's.
    """

    evaluator: Evaluator
    original: Result
    rows_in_time: Callable[[], float] = lambda: math.inf

    @functools.cached_property
    def limits(self) -> tuple[float, ...]:
        """Allowed drop of each metric, the first one's first."""
        constraints = self.evaluator.constraints
        return (constraints.max_drop, *list(constraints.max_drops.values())[1:])

    @functools.cached_property
    def few(self) -> bool:
        """True where the items are too few to resolve an allowed drop on the test split."""
        splits, base = self.evaluator.splits, self.original.selection
        items = len(splits.selection) + len(splits.test)
        known = base is not None and base.items is not None and len(base.items) > 0
        return known and not all(resolves(limit, items) for limit in self.limits)

    def judged(self, result: Result) -> Result:
        """Return a result with its quality on the test split and what that tells of its loss."""
        tested = self.evaluator.confirmed(result)
        known = self._losses(tested)
        if not known or known[0] is None:
            return tested
        others = tuple(loss for loss in known[1:] if loss is not None)
        first = known[0]
        parts = list(self._all_rows(tested))
        compares = self.evaluator.metric.wants == "labels" and tested.model is not None
        affordable = sum(map(len, parts)) <= self.rows_in_time()
        if not self.few or not compares or not affordable:
            return replace(tested, loss=replace(first, others=others))
        agreed = self._agreement(tested)
        if self.evaluator.metric.name == "top1":  # what no answer changed cannot have lost
            changed = loss_evidence(1 - agreed, first.limit, "all rows", room=0.0)
            first = replace(first, risk=min(first.risk, changed.risk))
        loss = replace(first, others=others)
        return replace(tested, loss=loss, kept_answers=float(agreed.mean()))

    def objection(self, tested: Result, looks: int) -> str | None:
        """Return why a candidate's quality is too low or too uncertain; None where it is not.

        Args:
            tested: candidate that was judged.
            looks: number of candidates that were judged, this one included.
        """
        if tested.loss is None or not self.few or self.evaluator.is_exact(tested):
            return loses_too_much(tested, self.original, self.evaluator.constraints, "test")
        every = (tested.loss, *tested.loss.others)
        found = [text for loss in every if (text := self._too_much(loss, looks))]
        return "; ".join(found) if found and not self._is_rounding(tested) else None

    def _is_rounding(self, tested: Result) -> bool:
        """Return whether answers differ by less than float16's rounding would, on a few rows.

        So small a change needs no items to be ruled out as a loss.
        """
        splits, original = self.evaluator.splits, self.evaluator.original
        if tested.model is None:
            return False
        rows = fitting(original, splits.selection.take(COMPARED_ROWS).bind(original))
        own = self.evaluator.on(tested)
        found = Judge(original, rows, own.ctx.target, own.engine).of(tested.model)
        # Of numbers and signals what is kept is 1 less the relative error.
        return 1 - found.kept <= math.sqrt(SAME_LOSS) and found.loss <= SAME_LOSS

    def _too_much(self, loss: LossEvidence, looks: int) -> str | None:
        of = f" of {loss.metric}" if len(self.limits) > 1 else ""
        if loss.without_one > loss.limit + ROUNDING:
            where = f"on {loss.items} items of the {loss.part}"
            return f"loses {loss.value:.4f}{of} {where}, {loss.limit:g} is allowed"
        if loss.risk <= RISK / looks:
            return None
        most, ends = f"{(1 + EXCESS) * loss.limit:g}", f"[{loss.low:.4f}, {loss.high:.4f}]"
        return (
            f"loses {loss.value:.4f} {ends}{of} on {loss.items} items, too few to rule out {most} "
            f"(odds {loss.risk:.1%}, {RISK / looks:.1%} are allowed)"
        )

    def _losses(self, tested: Result) -> list[LossEvidence | None]:
        """Return what is known of the loss of each metric."""
        parts = ("selection", "test") if self.few else ("test",)
        bases = self.original.test
        if bases is None:
            return []
        by_part = [item_drops(tested, self.original, part) for part in parts]
        found: list[LossEvidence | None] = []
        for base, limit, *drops in zip((bases, *bases.others), self.limits, *by_part, strict=False):
            known = [d for d in drops if d is not None]
            loss = None
            if len(known) == len(parts):
                items, part = np.concatenate(known), TOGETHER if self.few else TEST
                loss = loss_evidence(items, limit, part, room=_room(base))
                loss = replace(loss, metric=base.metric)
            found.append(loss)
        return found

    def _agreement(self, tested: Result) -> Floats:
        """Return what is kept of the original's answer of each row of the data (N,)."""
        name = "agreement" if self.evaluator.metric.name == "top1" else "fidelity"
        found = [self._kept(tested, part, name).items for part in self._all_rows(tested)]
        items = [np.asarray(kept, np.float64) for kept in found if kept is not None]
        return np.concatenate(items) if items else np.ones(1)

    def _all_rows(self, tested: Result) -> Iterator[Dataset]:
        """Yield the data of all splits; of a trained candidate not what it was trained on."""
        splits, passes = self.evaluator.splits, tested.recipe.passes if tested.recipe else ()
        if not TRAINS & {p.name() for p in passes}:
            yield splits.calibration.take(CALIBRATION_ROWS)
        yield from (splits.selection, splits.test)

    def _kept(self, tested: Result, data: Dataset, name: str) -> Quality:
        assert tested.model is not None
        own, config = self.evaluator.on(tested), SessionConfig(threads=usable_cpus())
        metric = fitted(METRICS[name], own.original, data, config, own.ctx.runner)
        model, runner = tested.model, own.runner
        return evaluate(model, data, metric, reference=own.original, config=config, runner=runner)


def _room(base: Quality) -> float:
    """Return the share of the score that the original leaves to be won; 1 of one without an end."""
    if not 0 <= base.value <= 1:
        return 1.0
    return base.value if base.lower_is_better else 1 - base.value
