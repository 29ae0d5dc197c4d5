"""`optimize`: from constraints to the best model, with the evidence.

Candidates, evidence and cache live in `searching`, the rules of choice in `choice`, what may be
tried in `plan`; this file puts them together and draws the conclusion.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.context import Context
from trimtab.core.errors import OptionError
from trimtab.core.metric import Metric, find_metric
from trimtab.core.model import Model
from trimtab.passes.base import Pass
from trimtab.runtime_bench.bench.bench import Bench, LocalBench
from trimtab.runtime_bench.multi_device import machine_class

from .already_satisfied import say_what_holds
from .builder import Maker
from .confirm import confirm
from .costs import is_here
from .evaluator import Judge
from .folder import check_output, save_outcome
from .inputs import open_data, open_given
from .log import Log, Watch
from .outcome import Outcome
from .plan import Plan
from .ranking import explain, nearest_candidates, objections, preference, speedup
from .recipe import Recipe
from .result import Constraints, Result
from .run import Search
from .splits import Parts, split_data
from .stages import fixed, staged
from .store import Store
from .time_budget import Effort, Spent
from .timing import Measure, Timer

__all__ = ["Parts", "check_output", "optimize", "save_outcome", "split_data"]


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
    effort: Effort | None = None,
    seconds: float | None = None,
    train: float | str | None = None,
    cache: str | Path | bool | None = None,
    same_data: bool = False,
    measure: Measure | None = None,
    watch: Watch | None = None,
    look_into: bool = False,
    bench: Bench | None = None,
) -> Outcome:
    """The best model that holds the constraints, with the evidence.

    Args:
        model: the float original: a `Model`, a file, `module:callable`, or a `torch.nn.Module`,
            which is exported on the first row of the data.
        data: calibration and training data: a `Dataset`, what `--data` takes, or arrays by input
            name; selection and test too where `eval_data` is None; or all parts.
        eval_data: half of it chooses, half of it confirms.
        metric: see `find_metric`.
        constraints: what the result must hold and what is made small, as `Constraints` or a mapping
            such as `{"max_drop": 0.01, "max_size": "4MB"}`; a drop of at most 0.01 where None.
        passes: names or classes of the passes that may be used, or passes to try as they are; all
            where None, those of other packages (entry point `trimtab.passes`) included.
        recipes: candidates instead of the staged search.
        ctx: target, progress, seed.
        effort: bounds of time, training and trials.
        seconds: upper bound of all, as `effort.seconds`.
        train: time of training, in seconds or as `20m`; none where None.
        cache: folder of what was made and measured, so that a killed search goes on where it was;
            True for the usual place, memory alone where None.
        same_data: take evaluation data that hold calibration data, and mark the result.
        measure: how candidates are measured against the original; the bench where None.
        watch: called after each decision with it and all results so far.
        bench: where to measure; this machine where None. The target is the context's.
        look_into: profile the winner and judge its rounding layer by layer, for the report.

    Raises:
        DataError, OptionError: the data, the metric or the constraints do not fit.
    """
    ctx = ctx or Context()
    asked = Constraints.of(constraints)
    effort = effort or _effort(seconds, train)
    store = Store(_cache_root(cache), ctx.progress)
    log = Log(ctx.progress, watch)
    given = open_data(data)
    model = open_given(model, given)
    parts = split_data(given, open_data(eval_data), seed=ctx.seed, same_data=same_data)
    place = bench or LocalBench()
    search = _search(model, parts, metric, asked, ctx, store, log, effort, measure, place)
    search.begin()
    say_what_holds(search)
    if recipes is not None:
        fixed(search, _some(recipes))
    else:
        plan = Plan.of(model, parts.calibration, ctx.target, passes, timed=_timed(search))
        staged(search, plan)
    search.with_memory()
    outcome = _decide(search)
    return _looked_into(outcome, search) if look_into else outcome


def _looked_into(outcome: Outcome, search: Search) -> Outcome:
    """With what the report tells of the winner."""
    from .evidence import gather

    found = gather(
        outcome.original,
        outcome.results,
        outcome.chosen,
        held_out=search.judge.parts.selection,
        feeds=search.judge.feeds(),
        ctx=search.ctx,
        make=search.maker.model,
        environment=search.timer.bench.environment(),
    )
    return replace(outcome, evidence=found)


def _search(  # noqa: PLR0917 - puts the parts together, once
    model: Model,
    parts: Parts,
    metric: str | Metric | None,
    asked: Constraints,
    ctx: Context,
    store: Store,
    log: Log,
    effort: Effort,
    measure: Measure | None,
    bench: Bench,
) -> Search:
    if asked.max_latency_ns is not None and measure is None and not is_here(ctx.target):
        raise OptionError(
            f"a latency in milliseconds cannot be proved for {ctx.target.name}, which is not this "
            "machine",
            where="--max-latency",
            hint="Ask for --min-speedup, which is predicted and marked, or run on that machine",
        )
    judge = Judge(model, parts, find_metric(metric, parts.selection), asked, ctx, store)
    timer = Timer(model, judge.feeds(), ctx, store, measure, bench)
    maker = Maker(model, ctx, store, machine_class(bench))
    spent = Spent(effort, time.monotonic())
    return Search(asked, ctx, maker, judge, timer, log, spent)


def _effort(seconds: float | None, train: float | str | None) -> Effort:
    from trimtab.core.units import duration

    return Effort(seconds, None if train is None else duration(train))


def _cache_root(cache: str | Path | bool | None) -> Path | None:  # noqa: FBT001 - as documented
    from trimtab.core.cache import cache_root

    if cache is True:
        return cache_root()
    return Path(cache).expanduser() if cache else None


def _some(recipes: Iterable[Recipe]) -> tuple[Recipe, ...]:
    found = tuple(recipes)
    if not found:
        raise OptionError("there is no recipe to try", where="recipes")
    return found


def _timed(search: Search) -> bool:
    return search.ctx.clock is not None and is_here(search.ctx.target)


def _decide(search: Search) -> Outcome:
    """Choose on the selection part, confirm on the test part and in a fresh run."""
    asked, results = search.constraints, search.results
    original = search.judge.confirmed(search.original)
    fallback = next((r for r in results if _is_float(r) and r.model is not None), None)
    holding = [r for r in results if not r.dropped and not objections(r, original, asked)]
    ranked = preference(holding, fallback, asked.goal)
    why = _cut_short(results)
    found = confirm(search, original, ranked, fallback)
    why += found.why
    chosen = found.chosen
    if chosen is not None:
        results[:] = [chosen if r.name == chosen.name else r for r in found.results]
        why += explain(chosen, found.ranked, found.fallback, asked.goal)
    else:
        results[:] = found.results
        why += _binding(original, results, asked)
    effort = {
        "seconds": round(search.log.seconds, 1),
        "trials": search.spent.trials,
        "steps_made": search.maker.store.made,
        "steps_from_cache": search.maker.store.reused,
    }
    search.log.note("decide", f"chosen: {chosen.name if chosen else 'nothing'}", results)
    return Outcome(
        original,
        tuple(results),
        chosen,
        tuple(why),
        asked,
        search.judge.parts.to_json(),
        found.looks,
        tuple(search.log.entries),
        effort,
        _marks(search),
    )


def _cut_short(results: Sequence[Result]) -> list[str]:
    undecided = [r.name for r in results if (ratio := speedup(r)) and math.isinf(ratio.high)]
    cut = any(r.comparison is not None and r.comparison.interrupted for r in results)
    why = ["The measurement was interrupted; intervals are as wide as that."] if cut else []
    if undecided:
        names = ", ".join(undecided)
        why.append(f"Too little time for a verdict on {names}: give more with --time.")
    return why


def _marks(search: Search) -> tuple[str, ...]:
    marks = []
    if search.judge.parts.shared:
        marks.append("Calibration data are among the evaluation data: quality is too good.")
    if not search.measures:
        marks.append(
            f"{search.ctx.target.name} is not this machine: speed-ups are predicted by a cost "
            "model, not measured."
        )
    if not isinstance(search.timer.bench, LocalBench):
        marks.append(
            "Latency and memory were measured on the device, times by layer on this machine."
        )
    return tuple(marks)


def _is_float(result: Result) -> bool:
    return result.recipe is not None and [p.name() for p in result.recipe.passes] == ["simplify"]


def _binding(original: Result, results: Sequence[Result], asked: Constraints) -> list[str]:
    """The nearest candidates and what binds, for when none holds."""
    lines = ["No candidate holds the constraints."]
    for result, against in nearest_candidates(results, original, asked):
        worst = against[0]
        by = "" if math.isinf(worst.excess) else f" ({worst.constraint} by {worst.excess:.0%})"
        lines.append(f"{result.name}: {'; '.join(o.text for o in against)}{by}.")
    failed = [r for r in results if r.failure]
    return lines + [f"{r.name}: {r.failure}." for r in failed]
