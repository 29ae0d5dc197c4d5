"""Start of a search: splits, metric and plan, and what they cost. A dry run stops there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.core.context import Context
from trimtab.core.metric import Metric, find_limited, fitted
from trimtab.core.model import Model
from trimtab.core.ort.engines import Engine
from trimtab.passes.base import Pass

from ..recipe import Recipe
from ..reporting.evidence import TRAINS
from ..result import Constraints
from ..speed.costs import is_here
from ..splits import Splits, calibration_rows, split_data, taken_of
from ..steps.engines import beyond_cpu
from ..steps.plan import SearchPlan
from ..time_budget import TimeBudget
from .estimate import EstimateLine, estimate, span
from .inputs import open_data, open_input_model
from .preface import alike_lines, data_line, obstacles, plan_line, seconds_an_item, share_in_time


@dataclass(frozen=True, eq=False)
class Question:
    """Request of a user to a search.

    Attributes:
        model: the float original, in any form that `optimize` takes.
        data: calibration data, or all splits.
        eval_data: evaluation data, None where they are part of `data`.
        metric: see `find_metric`.
        constraints: limits, of which the allowed drop decides what data resolve.
        passes: passes that may be used; all where None.
        recipes: candidates instead of a plan.
        budget: limits of time.
        split: shares of the splits.
        same_data: accept evaluation data that contain calibration data.
        engines: execution providers to choose from.
    """

    model: Any
    data: Any
    eval_data: Any
    metric: str | Metric | None
    constraints: Constraints
    passes: Sequence[str | Pass | type[Pass]] | None
    recipes: tuple[Recipe, ...] | None
    budget: TimeBudget
    split: Sequence[float] | None = None
    same_data: bool = False
    engines: Sequence[Engine] = ()


@dataclass(frozen=True, eq=False)
class Prepared:
    """Start of a search.

    Attributes:
        model: the float original.
        splits: splits of the data.
        metric: metric, fitted to the original.
        plan: recipes that may be tried; None where the user names candidates.
        item_s: seconds of evaluating the original on one item.
        lines: estimated time of each candidate.
        told: what to say before anything is made.
    """

    model: Model
    splits: Splits
    metric: Metric
    plan: SearchPlan | None
    item_s: float
    lines: Sequence[EstimateLine]
    told: Sequence[str]


def prepared(question: Question, ctx: Context, *, timed: bool, measures: bool) -> Prepared:
    """Open model and data, split them, and estimate what the search takes.

    Args:
        question: what is asked.
        ctx: target, seed, runner.
        timed: whether passes may measure time.
        measures: whether this machine measures the candidates.

    Raises:
        DataError, OptionError, ModelError: they do not fit, or cannot be used.
    """
    budget, recipes = question.budget, question.recipes
    source = open_data(question.data)
    model = open_input_model(question.model, source)
    splits = _split(question, source, model, ctx)
    limits = question.constraints.max_drops or question.constraints.max_drop
    metric, limit = find_limited(limits, question.metric, splits.selection)
    item_s = seconds_an_item(model, splits.selection, metric, ctx.runner)
    share, told = share_in_time(splits, item_s, budget), list[str]()
    if share < 1:
        told.append(f"Evaluating an item takes {1e3 * item_s:.1f} ms: {share:.0%} of them are used")
        splits = taken_of(splits, share, ctx.seed)
    metric = fitted(metric, model, splits.selection, runner=ctx.runner)
    told.append(data_line(splits, metric, limit))
    told += alike_lines(splits)
    plan, lines = None, list[EstimateLine]()
    if recipes is None:
        plan = SearchPlan.of(
            model,
            splits.calibration,
            ctx.target,
            question.passes,
            timed=timed and is_here(ctx.target),
        )
        lines = estimate(plan, item_s, splits, budget, question.engines)
        names = [*plan.family_names(), *(f"the best on {e}" for e in beyond_cpu(question.engines))]
        told.append(plan_line(names, span(lines, budget), budget))
    trains = budget.train_seconds is not None
    told += [f"In the way: {text}." for text in obstacles(trains=trains, measures=measures)]
    return Prepared(model, splits, metric, plan, item_s, lines, told)


def _split(question: Question, source: Any, model: Model, ctx: Context) -> Splits:
    recipes, rows = question.recipes or (), None
    trains = question.budget.train_seconds is not None
    trains = trains or any(TRAINS & {p.name() for p in recipe.passes} for recipe in recipes)
    if not isinstance(source, Splits):
        limit = question.constraints.max_drop
        rows = calibration_rows(model, len(source), limit, trains=trains)
    return split_data(
        source,
        open_data(question.eval_data),
        seed=ctx.seed,
        same_data=question.same_data,
        shares=question.split,
        calibration=rows,
    )
