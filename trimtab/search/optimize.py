"""`optimize`: from constraints to the best model, with the evidence.

`run` holds the candidates and how they are evaluated, `stages` the order in which they are tried,
`plan` the recipes that may be tried and `ranking` the rules of choice; this file puts them together
and draws the conclusion.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.cache import cache_root
from trimtab.core.context import Context
from trimtab.core.errors import OptionError
from trimtab.core.metric import Metric
from trimtab.core.target import Target
from trimtab.core.units import duration
from trimtab.passes.base import Pass
from trimtab.runtime_bench.bench.bench import Bench, LocalBench
from trimtab.runtime_bench.multi_device import machine_classes

from .advice import advice
from .builder import Builder
from .confirmation.confirm import Confirmation
from .evaluator import Evaluator
from .ranking import explain, nearest_candidates, objections, preference, speedup
from .recipe import Recipe
from .reporting.evidence import gather_evidence
from .reporting.folder import check_output, save_outcome
from .reporting.log import Log, Watch
from .reporting.outcome import Outcome
from .result import Constraints, Result
from .run import Search
from .speed.costs import is_here
from .speed.timing import Measure, Timer
from .splits import Splits, split_data
from .standing import speed_standing
from .start.preparing import Question, prepared
from .steps.engines import read_engines
from .steps.plan import claims_no_speed
from .steps.stages import fixed, staged
from .store import ResultStore
from .throughput import load_of, load_text, sweep
from .time_budget import Spent, TimeBudget

__all__ = ["Parts", "Splits", "check_output", "optimize", "save_outcome", "split_data"]

#: Former name of `Splits`.
Parts = Splits


def optimize(  # noqa: PLR0913 - the one call of the search, all but two by keyword
    model: Any,
    data: Any,
    *,
    eval_data: Any = None,
    metric: str | Metric | None = None,
    constraints: Constraints | Mapping[str, Any] | None = None,
    passes: Sequence[str | Pass | type[Pass]] | None = None,
    recipes: Iterable[Recipe] | None = None,
    ctx: Context | None = None,
    budget: TimeBudget | None = None,
    effort: TimeBudget | None = None,
    seconds: float | None = None,
    train: float | str | None = None,
    cache: str | Path | bool | None = None,
    same_data: bool = False,
    measure: Measure | None = None,
    watch: Watch | None = None,
    look_into: bool = False,
    bench: Bench | None = None,
    split: Sequence[float] | None = None,
    quiet_for: float = 0.0,
    providers: Sequence[str] = (),
) -> Outcome:
    """Find the best model that satisfies the constraints, with the evidence.

    Args:
        model: the float original: a `Model`, a file, `module:callable`, or a `torch.nn.Module`,
            which is exported on the first rows of the data.
        data: calibration and training data: a `Dataset`, what `--data` takes, or arrays by input
            name; selection and test too where `eval_data` is None; or all `Splits`.
        eval_data: evaluation data; half of it selects the winner, half of it confirms it.
        metric: see `find_metric`.
        constraints: limits of the result and the goal, as `Constraints` or a mapping such as
            `{"max_drop": 0.01, "max_size": "4MB"}`; a drop of at most 0.01 where None. Several
            metrics are limited by `{"max_drop": {"map": 0.01, "miou": 0.02}}`.
        passes: names or classes of the passes that may be used, or passes to try as they are; all
            where None, those of other packages (entry point `trimtab.passes`) included.
        recipes: candidates to evaluate instead of the staged search.
        ctx: target, progress, seed.
        budget: limits of time, training and trials.
        effort: former name of `budget`.
        seconds: time limit of the whole search, as `budget.seconds`.
        train: training time, in seconds or as `20m`; no training where None.
        cache: cache folder, from which a killed search resumes; True for the default folder, None
            for a cache in memory.
        same_data: accept evaluation data that contain calibration data, and mark the result.
        measure: function that measures candidates against the original; the bench where None.
        watch: callback that gets each decision and all results so far.
        bench: bench that measures; this machine where None. The target is the context's.
        look_into: profile the winner and analyse its rounding layer by layer, for the report.
        split: shares of calibration, selection and test, see `split_data`; as few rows as do
            calibrate where None.
        quiet_for: seconds to wait for a quiet machine, in all.
        providers: execution providers of this machine to choose from, as `["cpu", "openvino"]` or
            `["auto"]` for all that start here; the CPU's is always among them.

    Raises:
        DataError, OptionError: the data, the metric or the constraints do not fit.
    """
    ctx = ctx or Context()
    constraints, engines = Constraints.of(constraints), read_engines(providers)
    budget = budget or effort or TimeBudget(seconds, None if train is None else duration(train))
    log = Log(ctx.progress, watch)
    given = tuple(recipes) if recipes is not None else None
    question = Question(
        *(model, data, eval_data, metric, constraints, passes, given, budget, split, same_data),
        engines,
    )
    measures = is_here(ctx.target) and measure is None
    start = prepared(question, ctx, timed=ctx.clock is not None, measures=measures)
    for text in start.told:
        log.note("plan", text)
    if measure is None:
        _refuse_unmeasurable(constraints, ctx.target)
    store = ResultStore(_cache_root(cache), ctx.progress)
    evaluator = Evaluator(start.model, start.splits, start.metric, constraints, ctx, store)
    search = _search(evaluator, log, budget, measure, bench or LocalBench())
    search.item_s, search.quiet_left_s = start.item_s, quiet_for
    search.begin()
    search.report_if_satisfied()
    if start.plan is None:
        fixed(search, question.recipes or (), engines)
    else:
        staged(search, start.plan, engines)
    search.with_memory()
    outcome = _decide(search)
    return _with_evidence(outcome, search) if look_into else outcome


def _search(
    evaluator: Evaluator, log: Log, budget: TimeBudget, measure: Measure | None, bench: Bench
) -> Search:
    """Return the search that has made nothing yet."""
    model, ctx, store = evaluator.original, evaluator.ctx, evaluator.store
    spent = Spent(budget, time.monotonic() if budget.started is None else budget.started)
    load = load_of(evaluator.constraints, evaluator, bench)
    timer = Timer(model, evaluator.feeds(), ctx, store, measure, bench, load)
    builder = Builder(model, ctx, store, machine_classes(bench))
    return Search(evaluator.constraints, ctx, builder, evaluator, timer, log, spent)


def _with_evidence(outcome: Outcome, search: Search) -> Outcome:
    """Add the evidence that the report shows of the winner, as far as time allows."""
    found = gather_evidence(
        outcome.original,
        outcome.results,
        outcome.chosen,
        held_out=search.evaluator.splits.selection,
        feeds=search.evaluator.feeds(),
        ctx=search.ctx,
        make=search.builder.model,
        environment=search.timer.bench.environment(),
        seconds=search.spent.evidence_s,
    )
    if search.timer.load is not None:
        found["sweep"] = sweep(search, outcome.chosen)
    return replace(outcome, evidence=found)


def _refuse_unmeasurable(constraints: Constraints, target: Target) -> None:
    """Refuse a latency or a throughput that this machine cannot measure."""
    limited = constraints.max_latency_ns is not None
    if (limited or constraints.goal == "throughput") and not is_here(target):
        what = "a latency in milliseconds" if limited else "a throughput"
        raise OptionError(
            f"{what} cannot be proved for {target.name}, which is not this machine",
            where="--max-latency" if limited else "--goal throughput",
            hint="Ask for --min-speedup, which is predicted and marked, or run on that machine",
        )


def _cache_root(cache: str | Path | bool | None) -> Path | None:  # noqa: FBT001 - as documented
    if cache is True:
        return cache_root()
    return Path(cache).expanduser() if cache else None


def _decide(search: Search) -> Outcome:
    """Choose on the selection split, confirm on the test split and in a fresh run."""
    constraints, results = search.constraints, search.results
    original = search.evaluator.confirmed(search.original)
    fallbacks = [r for r in results if _is_float(r) and r.model is not None]
    holding = [r for r in results if not r.dropped and _may_hold(r, original, constraints)]
    ranked = preference(holding, fallbacks, constraints.goal)
    why = _cut_short(results)
    names = ", ".join(r.name for r in ranked) or "none"
    search.log.note("confirm", f"to be confirmed, the best first: {names}", results)
    found = Confirmation(search, original, list(results), ranked, fallbacks)
    found.run()
    why += found.why
    chosen = found.chosen
    if chosen is not None:
        results[:] = [chosen if r.name == chosen.name else r for r in found.results]
        why += explain(chosen, found.ranked, found.fallbacks, constraints.goal)
    else:
        results[:] = found.results
        why += _binding(original, results, constraints)
    effort = {
        "seconds": round(search.log.seconds, 1),
        "trials": search.spent.trials,
        "steps_made": search.builder.store.made,
        "steps_from_cache": search.builder.store.reused,
    }
    search.log.note("decide", f"chosen: {chosen.name if chosen else 'nothing'}", results)
    return Outcome(
        original,
        tuple(results),
        chosen,
        tuple(why),
        constraints,
        search.evaluator.splits.to_json(),
        found.looks,
        tuple(search.log.entries),
        effort,
        _marks(search),
        advice=advice(search, chosen),
    )


def _may_hold(result: Result, original: Result, constraints: Constraints) -> bool:
    """Return whether a candidate satisfies the constraints, as far as the search could tell.

    A speed-up that is asked for and looks reached is proved or refuted by the fresh run.
    """
    c, wanted = result.comparison, constraints.min_speedup
    if c is not None and wanted is not None:
        constraints = replace(constraints, min_speedup=None)
        if c.ratio < wanted or speed_standing(c, wanted) == "refuted":
            return False
    return not objections(result, original, constraints)


def _cut_short(results: Sequence[Result]) -> list[str]:
    undecided = [r.name for r in results if (ratio := speedup(r)) and math.isinf(ratio.high)]
    cut = any(r.comparison is not None and r.comparison.interrupted for r in results)
    why = ["The measurement was interrupted; intervals are as wide as that."] if cut else []
    if undecided:
        names = ", ".join(undecided)
        why.append(f"There was too little time to measure {names}.")
    return why


def _marks(search: Search) -> tuple[str, ...]:
    marks = []
    if search.evaluator.splits.shared:
        marks.append("Calibration data are among the evaluation data: quality is too good.")
    if not search.measures:
        name = search.ctx.target.name
        how = "speed-ups are predicted by a cost model, not measured"
        marks.append(f"{name} is not this machine: {how}.")
    if not isinstance(search.timer.bench, LocalBench):
        where = "on the device, times by layer on this machine"
        marks.append(f"Latency and memory were measured {where}.")
    if search.timer.load is not None:
        marks.append(load_text(search))
    return tuple(marks)


def _is_float(result: Result) -> bool:
    """Return whether a candidate is the float model, in a form that is not slower."""
    if result.recipe is None or result.engine or not claims_no_speed(result.recipe):
        return False
    slower = result.comparison is not None and result.comparison.verdict == "worse"
    return len(result.recipe.passes) == 1 or not slower


def _binding(original: Result, results: Sequence[Result], constraints: Constraints) -> list[str]:
    """Describe the nearest candidates and the constraints that they violate."""
    lines = ["No candidate satisfies the constraints."]
    for result, against in nearest_candidates(results, original, constraints):
        worst = against[0]
        by = "" if math.isinf(worst.excess) else f" ({worst.constraint} by {worst.excess:.0%})"
        lines.append(f"{result.name}: {'; '.join(o.text for o in against)}{by}.")
    failed = [r for r in results if r.failure]
    return lines + [f"{r.name}: {r.failure}." for r in failed]
