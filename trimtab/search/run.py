"""The search: stages that add candidates, cheap evidence first, expensive evidence for survivors.

built, counted    all candidates: file, products, bytes moved
tested            all that could be made: quality on growing shares of the data
measured          those that keep it and are small enough: latency, interleaved with the original
trained           the most promising, where training is allowed
confirmed         the best of them, on data and in a run that nothing was chosen on
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from trimtab.core.batches import finite_batches
from trimtab.core.context import Context
from trimtab.core.errors import TrimtabError
from trimtab.core.metric import values_text

from .already_satisfied import report_if_satisfied
from .builder import Builder
from .costs import Costs, costs, is_here, with_costs
from .evaluator import Evaluator
from .log import Log
from .memory import with_memory
from .ranking import (
    loses_too_much,
    losses,
    preference,
    speedup,
    violations,
    worst_loss,
)
from .recipe import Recipe
from .result import Constraints, Result
from .time_budget import Spent
from .timing import ORIGINAL, SECONDS_PER_GRAPH, Timer

#: Calibration items that are checked beforehand: no pass but training reads more.
CALIBRATING = 1024


@dataclass
class Search:
    """State of a search, and the ways to add candidates and evidence.

    Attributes:
        constraints: limits of the result, and the goal.
        ctx: target, seed, progress.
        builder: builder of candidates.
        evaluator: evaluator of their quality.
        timer: timer of their latency.
        log: log of decisions.
        spent: part of the time budget that is used up.
        results: candidates in the order in which they were made.
    """

    constraints: Constraints
    ctx: Context
    builder: Builder
    evaluator: Evaluator
    timer: Timer
    log: Log
    spent: Spent
    results: list[Result] = field(default_factory=list)
    original: Result = field(init=False)
    base_costs: Costs | None = field(init=False, default=None)

    def begin(self) -> None:
        """Evaluate the original.

        Raises:
            TrimtabError: it cannot be evaluated, or the data contain NaN: in the test split that is
                found at the end, in calibration data as the failure of each candidate.
        """
        splits = self.evaluator.splits
        for part in (splits.calibration.take(CALIBRATING), splits.test):
            for _ in finite_batches(part):
                pass
        model, quality = self.builder.original, self.evaluator.base
        self.base_costs = costs(model, self.timer.feeds, self.ctx, self.builder.store)
        self.original = Result(
            "original",
            model=model,
            size_bytes=model.size_bytes,
            selection=quality,
            macs=self.base_costs.macs,
            moved_bytes=self.base_costs.moved_bytes,
        )
        self.log.note(
            "original",
            f"original: {values_text(quality)} on {quality.count} items, {model.size_bytes} bytes",
            metric=quality.metric,
            value=quality.value,
            size_bytes=model.size_bytes,
        )

    @property
    def measures(self) -> bool:
        """True where latencies are measured, not predicted."""
        return self.timer.measure is not None or is_here(self.ctx.target)

    def attempt(self, stage: str, recipes: Iterable[Recipe]) -> list[Result]:
        """Make, count and evaluate candidates; return those that are new, in order."""
        found = []
        for recipe in recipes:
            over = self.spent.over
            if over:
                self.log.note(stage, f"no further candidate: {over}", reason=over)
                break
            if any(r.name == recipe.name for r in self.results):
                continue
            made = self._counted(self.builder.build(recipe, stage))
            self.spent.trials += 1
            if self._is_twin(made):
                self.log.note(stage, f"{made.name} is the same model as an earlier candidate")
                continue
            evaluated = made if made.failure is not None else self.evaluator.evaluated(made)
            self.results.append(evaluated)
            found.append(evaluated)
            self._report(stage, evaluated)
        return found

    def measure(
        self, stage: str, seconds_each: float = SECONDS_PER_GRAPH, *, brief: bool = False
    ) -> None:
        """Measure those that keep their quality and have no latency yet, or only a brief one."""
        if not self.measures:
            return
        self._leave_out_alike(stage)
        waiting = [r for r in self.good() if self.timer.lacks_time(r) and self._small_enough(r)]
        if not waiting:
            return
        graphs = len({r.name for r in waiting})
        seconds = self.spent.measuring_s(graphs, seconds_each)
        timed = self.timer.measured(waiting, seconds, brief=brief)
        for old, new in zip(waiting, timed, strict=True):
            self.results[self.results.index(old)] = new
            ratio = speedup(new)
            self.log.note(
                stage,
                f"{new.name}: {ratio or new.failure}",
                self.results,
                candidate=new.name,
                speedup=ratio and [ratio.value, ratio.low, ratio.high],
                failure=new.failure,
                measured_as=new.measured_as,
            )

    def _leave_out_alike(self, stage: str) -> None:
        """Mark candidates that run the original's own graph: they need no clock."""
        for index, result in enumerate(self.results):
            if result.model is None or result.comparison is not None:
                continue
            if self.timer.lacks_time(result) and self.timer.alike(result.model):
                self.results[index] = replace(result, measured_as=ORIGINAL)
                self.log.note(stage, f"{result.name}: runs the same graph as the original")

    def good(self) -> list[Result]:
        """Return the candidates that could be made and keep their quality, as far as is known."""
        return [
            r
            for r in self.results
            if r.failure is None
            and r.dropped is None
            and not loses_too_much(r, self.original, self.constraints)
        ]

    def named(self, name: str) -> Result | None:
        """Return the candidate of that name."""
        return next((r for r in self.results if r.name == name), None)

    def keeps(self, result: Result | None) -> bool:
        """Return whether a candidate exists and keeps its quality."""
        return result is not None and any(r.name == result.name for r in self.good())

    def drop(self, result: Result) -> float:
        """Return the drop of a candidate on those items of the selection split that it saw."""
        if result.dropped and result.selection and result.selection.items is not None:
            count = len(result.selection.items)
            base = self.evaluator.base.items
            assert base is not None
            first = replace(result.selection, items=base[:count], value=float(base[:count].mean()))
            return result.selection.drop_from(first)[0]
        return worst_loss(result, self.original, self.constraints)

    def best(self) -> Result | None:
        """Return the best candidate so far that satisfies all constraints."""
        holding = [r for r in self.good() if not violations(r, self.original, self.constraints)]
        ranked = preference(holding, None, self.constraints.goal)
        return ranked[0] if ranked else None

    def with_memory(self) -> None:
        """Measure the peak memory of those that satisfy all else, where it is constrained."""
        if self.constraints.max_rss is None:
            return
        rest = replace(self.constraints, max_rss=None)
        for index, result in enumerate(self.results):
            if not (result.failure or violations(result, self.original, rest)):
                self.results[index] = self._with_peak(result)

    def report_if_satisfied(self) -> None:
        """Report, as soon as it is known, whether the original satisfies the constraints."""
        report_if_satisfied(self.log, self.constraints, self.original, self.results, self._peak)

    def _peak(self) -> float | None:
        """Return the peak memory of the original in bytes."""
        return self._with_peak(self.original).rss_bytes

    def _with_peak(self, result: Result) -> Result:
        return with_memory(result, self.timer.feeds, self.ctx, self.builder.store, self.timer.bench)

    def _counted(self, made: Result) -> Result:
        if made.model is None or self.base_costs is None:
            return made
        try:
            found = costs(made.model, self.timer.feeds, self.ctx, self.builder.store)
        except TrimtabError as error:
            return replace(made, failure=str(error))
        target = None if self.measures else self.ctx.target
        return with_costs(made, self.base_costs, found, target)

    def _is_twin(self, made: Result) -> bool:
        """Return whether an earlier recipe made the same model."""
        digests = {r.model.digest for r in self.results if r.model is not None}
        return made.model is not None and made.model.digest in digests

    def _small_enough(self, result: Result) -> bool:
        """Return whether the file is small enough: one that is too large needs no clock."""
        limit = self.constraints.max_size
        return limit is None or result.size_bytes <= limit

    def _report(self, stage: str, result: Result) -> None:
        why = result.failure or result.dropped
        if why is None and result.selection is not None:
            why = loses_too_much(result, self.original, self.constraints)
            lost = ", ".join(
                f"{loss.drop:+.4f}{f' of {loss.metric}' if self.constraints.max_drops else ''}"
                for loss in losses(result, self.original, self.constraints)
            )
            message = why or f"drop {lost} on {result.selection.count} items: kept"
        else:
            message = f"dropped: {why}"
        self.log.note(
            stage,
            f"{result.name}: {message}",
            self.results,
            candidate=result.name,
            kept=why is None,
            value=result.selection.value if result.selection else None,
            items=result.selection.count if result.selection else None,
            size_bytes=result.size_bytes,
            macs=result.macs,
        )
