"""Promise of a search among int8 models: a part of the answers, or a metric within limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.core.batches import fitting
from trimtab.core.dataset import Dataset
from trimtab.core.metric import evaluate, find_limited
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.runner import Remembering
from trimtab.core.target import usable_cpus

from .greedy_search import GreedySearch
from .hold_out import hold_out
from .judge import MARGIN_OF_PROMISE
from .static import QuantizeStatic


@dataclass(frozen=True)
class Wanted:
    """Promise of what the chosen model of a search keeps, on samples that it was not made from.

    Attributes:
        search: the search.
        data: samples, of which a part is held out.
        samples: number of samples to calibrate on; at most as many are held out.
        fidelity: part of the float model's answers to keep.
        max_drop: allowed drop of the metric, instead of `fidelity`.
        metric: metric of max_drop, see `find_limited`.
    """

    search: GreedySearch
    data: Dataset
    samples: int
    fidelity: float
    max_drop: float | dict[str, float] | None = None
    metric: str = ""

    def is_missed(self) -> bool:
        """Return whether less than the promise is kept, or more than `max_drop` lost."""
        if self.max_drop is not None:
            return self.metric_falls(self.search.chosen)
        return not self.search.keeps_promise

    def metric_falls(self, model: Model) -> bool:
        """Return whether a metric falls by more than `max_drop`, where that is given."""
        if self.max_drop is None:
            return False
        original, ctx = self.search.original, self.search.ctx
        held_out = fitting(original, hold_out(self.data, self.samples)[1])
        metric, limit = find_limited(self.max_drop, self.metric or None, held_out)
        config = SessionConfig.for_evaluation(ctx.target, threads=usable_cpus())
        runner = Remembering(original, ctx.runner)
        base, mine = (
            evaluate(m, held_out, metric, reference=original, config=config, runner=runner)
            for m in (original, model)
        )
        return any(loss.broken for loss in mine.losses_from(base, limit))

    def mixed(self, static: QuantizeStatic, margin: float = MARGIN_OF_PROMISE) -> QuantizeStatic:
        """Return the same settings with `max_drop`, which holds out the same samples.

        The margin is the part of what the promise allows to lose that is used.
        """
        promised = self.max_drop is None
        return static.with_fields(
            data=self.data,
            samples=self.samples,
            max_drop=margin * (1 - self.fidelity) if promised else self.max_drop,
            metric="fidelity" if promised else self.metric,
            closest=promised,
        )

    def offer_mixed(
        self, static: QuantizeStatic, before: tuple[Any, ...], after: tuple[Any, ...] = ()
    ) -> bool:
        """Leave layers float until enough is kept; with `max_drop` whatever that does to others.

        Returns whether the mixture is the best so far.
        """
        steps = (*before, self.mixed(static), *after)
        if self.max_drop is None:
            return self.search.offer("mixed precision", *steps, as_fast=False)
        self.search.start("mixed precision", *steps)
        return True

    def report(self, rows: int, held_out: int) -> dict[str, Any]:
        """Return what the result keeps of so many rows, beside what was wanted.

        Args:
            rows: rows that judged.
            held_out: those of them that no candidate was made from.
        """
        broken = self.max_drop is None and not self.search.keeps_promise
        verdict = self.search.verdict
        kept = round(verdict.kept, 4)
        judged: dict[str, Any] = {"rows": rows, "held_out": held_out}
        if verdict.interval is not None:
            judged["interval"] = [round(end, 4) for end in verdict.interval]
        return {"fidelity": kept, "wanted": self.fidelity, **judged, "broken": broken}
