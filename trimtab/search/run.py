"""The search: stages that add candidates, cheap evidence first, expensive evidence for survivors.

built, counted    all candidates: file, products, bytes moved
tested            all that could be made: quality on growing shares of the data
measured          those that keep it and are small enough: latency, interleaved with the original
trained           the most promising, where training is allowed
confirmed         the best of them, on data and in a run that nothing was chosen on
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from trimtab.core.batches import finite_batches
from trimtab.core.context import Context
from trimtab.core.errors import TrimtabError
from trimtab.core.feeds import reads_missing
from trimtab.core.metric import values_text
from trimtab.core.ort.engines import Engine
from trimtab.core.text import bytes_text, counted
from trimtab.runtime_bench.machine.quiet import wait_for_quiet

from .alarm import OutOfTime
from .already_satisfied import report_if_satisfied
from .builder import Builder
from .evaluator import Evaluator
from .ranking import (
    loses_too_much,
    losses,
    preference,
    speedup,
    violations,
    worst_loss,
)
from .recipe import Recipe
from .reporting.log import Log
from .result import Constraints, Result
from .speed.costs import Costs, costs, is_here, with_costs
from .speed.memory import with_memory
from .speed.timing import ORIGINAL, SECONDS_PER_GRAPH, Timer
from .standing import is_bounded
from .time_budget import Spent, pass_seconds, timed_as

#: Calibration items that are checked beforehand: no pass but training reads more.
CALIBRATING = 1024
#: Evaluations of the test split that time is kept for: of the original and of two candidates.
JUDGED = 3
#: Share of the time for confirming in which answers are compared with the original's.
COMPARING = 0.2
#: Runs of each model in the shortest measurement: warm-up, new sessions, one block.
LEAST_RUNS = 15


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
        quiet_left_s: seconds that may still be spent waiting for a quiet machine.
        cut_short: names of candidates that time allowed neither to make nor to measure.
        item_s: seconds of evaluating the original on one item.
    """

    constraints: Constraints
    ctx: Context
    builder: Builder
    evaluator: Evaluator
    timer: Timer
    log: Log
    spent: Spent
    results: list[Result] = field(default_factory=list)
    quiet_left_s: float = 0.0
    cut_short: list[str] = field(default_factory=list)
    item_s: float = 0.0
    original: Result = field(init=False)
    base_costs: Costs | None = field(init=False, default=None)

    def begin(self) -> None:
        """Evaluate the original.

        Raises:
            TrimtabError: it cannot be evaluated, or the data contain NaN: in the test split that is
                found at the end, in calibration data as the failure of each candidate.
        """
        splits, missing = self.evaluator.splits, reads_missing(self.builder.original)
        for part in (splits.calibration.take(CALIBRATING), splits.test):
            for _ in finite_batches(replace(part, missing=missing)):
                pass
        model, start = self.builder.original, time.monotonic()
        quality = self.evaluator.base
        self.item_s = max(self.item_s, (time.monotonic() - start) / max(1, quality.count))
        self.spent.judging_s = JUDGED * self.item_s * len(splits.test)
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
            f"original: {values_text(quality)} on {counted(quality.count, 'item')}, "
            f"{bytes_text(model.size_bytes)}",
            metric=quality.metric,
            value=quality.value,
            size_bytes=model.size_bytes,
        )

    @property
    def measures(self) -> bool:
        """True where latencies are measured, not predicted."""
        return self.timer.measure is not None or is_here(self.ctx.target)

    def attempt(
        self, stage: str, recipes: Iterable[Recipe], engine: Engine | None = None
    ) -> list[Result]:
        """Make, count and evaluate candidates; return those that are new, in order.

        On an engine a candidate is made for the recipe's target, and one of its own.
        """
        found = []
        for recipe in self._dearest_last(recipes):
            over = self.spent.over
            if over:
                self.log.note(stage, f"no further candidate: {over}", reason=over)
                break
            name = recipe.name if engine is None else f"{recipe.name} on {engine}"
            if self.named(name) or (engine is None and not self._fits(stage, recipe)):
                continue
            made = self._made(stage, recipe, engine)
            if made is not None:
                self.results.append(made)
                found.append(made)
                self._report(stage, made)
        return found

    def _made(self, stage: str, recipe: Recipe, engine: Engine | None) -> Result | None:
        """Make, count and evaluate a candidate; None where it is none, or time ended meanwhile."""
        self.spent.trials += 1
        try:
            with self.spent.alarm():
                target = None if engine is None else recipe.target
                made = self._counted(self.builder.build(recipe, stage, target))
                if engine is not None:
                    name = f"{made.name} on {engine}"
                    made = replace(made, name=name, engine=str(engine))
                if self._is_twin(made):
                    text = f"{made.name} is the same model as an earlier candidate"
                    self.log.note(stage, text)
                    return None
                return made if made.failure is not None else self.evaluator.evaluated(made)
        except OutOfTime:
            self.cut_short.append(recipe.name)
            self.log.note(stage, f"{recipe.name}: time ended before it was made and evaluated")
            return None

    def _dearest_last(self, recipes: Iterable[Recipe]) -> list[Recipe]:
        """Sort recipes by the time of making them, where time is limited."""
        known = list(recipes)
        return sorted(known, key=self.making_s) if self.spent.budget.seconds else known

    def making_s(self, recipe: Recipe) -> float:
        """Predict the seconds of making and evaluating a candidate.

        A pass that ran before takes what it took, another what networks like it took for as many
        items as it looks at.
        """
        splits, known = self.evaluator.splits, self.builder.seconds
        rows = len(splits.calibration)
        steps = (known.get(timed_as(p), pass_seconds(p, self.item_s, rows)) for p in recipe.passes)
        return sum(steps) + self.item_s * len(splits.selection)

    def rows_in_time(self) -> float:
        """Return the rows that can be run through two models in a part of the time for confirming.

        The fresh run needs the rest.
        """
        left = self.spent.confirming_s
        return math.inf if left is None else COMPARING * max(0.0, left) / (2 * self.item_s)

    def with_float(self, recipe: Recipe) -> None:
        """Add the float model where time ended before it: what it computes is the original."""
        known = any(r.name == recipe.name and r.failure is None for r in self.results)
        if known or self.spent.budget.seconds is None:
            return
        made = self._counted(self.builder.build(recipe, "float"))
        if made.failure is None:
            self.results.append(replace(made, selection=self.evaluator.base))

    def _fits(self, stage: str, recipe: Recipe) -> bool:
        """Return whether a candidate can be made in time, with room to measure what was made."""
        if self.spent.budget.seconds is None or not self.results:
            return True
        waiting = sum(self.timer.lacks_time(r) for r in self.good()) if self.measures else 0
        seconds, left = self.making_s(recipe), self.spent.making_s(waiting)
        if seconds <= left:
            return True
        self.cut_short.append(recipe.name)
        self.log.note(
            stage,
            f"{recipe.name} is left out: making it takes about {seconds:.0f} s, and "
            f"{max(0.0, left):.0f} s are left beside measuring what was made",
            candidate=recipe.name,
            seconds=seconds,
        )
        return False

    def measure(
        self,
        stage: str,
        seconds_each: float = SECONDS_PER_GRAPH,
        *,
        width: float | None = None,
        settle: bool = False,
    ) -> None:
        """Measure those that keep their quality and have no latency yet, or only a rough one.

        It stops where intervals are as narrow as the width, by default that of the resolution.

        To settle: those that may win and have no verdict yet.
        """
        if not self.measures:
            return
        self._leave_out_alike(stage)
        lacking = [r for r in self.good() if self.timer.lacks_time(r, settle=settle)]
        waiting = [r for r in lacking if self._small_enough(r) and not self._is_beaten(r)]
        waiting = self._affordable(stage, waiting)
        if not waiting:
            return
        self._wait_until_quiet(stage)
        graphs = len({r.name for r in waiting})
        seconds = self.spent.measuring_s(graphs, seconds_each)
        start = time.monotonic()
        timed = self.timer.measured(waiting, seconds, width=width, settle=settle)
        self.spent.measured(seconds, time.monotonic() - start, self.timer.starting_s)
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

    def _is_beaten(self, result: Result) -> bool:
        """Return whether a measured candidate is slower for certain than the best so far."""
        best, own = self.best(), speedup(result)
        leading = None if best is None else speedup(best)
        measured = result.comparison is not None and is_bounded(result.comparison)
        return measured and leading is not None and own is not None and own.high < leading.low

    def _affordable(self, stage: str, waiting: list[Result]) -> list[Result]:
        """Return those of which time allows a few blocks: of slow models perhaps not all."""
        if self.spent.budget.seconds is None or not waiting:
            return waiting
        runs = 2.0 * self.item_s * LEAST_RUNS  # of a candidate and of the original beside it
        fitting = max(
            1 if self.spent.left_s > runs else 0, int(self.spent.left_s / max(runs, 1e-9))
        )
        for result in waiting[fitting:]:
            self.cut_short.append(result.name)
            self.log.note(stage, f"{result.name}: no time to measure it", candidate=result.name)
        return waiting[:fitting]

    def _wait_until_quiet(self, stage: str) -> None:
        """Wait until the machine is quiet, for as long as the user allows in all."""
        if not self.quiet_left_s or self.timer.measure is not None:
            return
        seconds = min(self.quiet_left_s, max(0.0, self.spent.left_s / 2))
        self.log.note(stage, f"waiting for a quiet machine, {seconds:.0f} s at most")
        found = wait_for_quiet(seconds, self.ctx.target.threads)
        self.quiet_left_s = max(0.0, self.quiet_left_s - found.seconds)
        text = "quiet" if found.quiet else f"not quiet ({found.reason})"
        self.log.note(stage, f"{text} after {found.seconds:.0f} s", quiet=found.quiet)

    def _leave_out_alike(self, stage: str) -> None:
        """Mark candidates that run the original's own graph: they need no clock."""
        for index, result in enumerate(self.results):
            if result.model is None or result.comparison is not None:
                continue
            if self.timer.lacks_time(result) and self.timer.alike(result):
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
        ranked = preference(holding, goal=self.constraints.goal)
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
        known = {(r.model.digest, r.engine) for r in self.results if r.model is not None}
        return made.model is not None and (made.model.digest, made.engine) in known

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
