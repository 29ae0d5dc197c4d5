"""`--dry-run`: the candidates that would be tried, and about how long each takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.metric import evaluate, find_metric
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import usable_cpus

from .confirm import SECONDS_EACH
from .costs import is_here
from .plan import SHARES, SearchPlan
from .recipe import Recipe
from .splits import split_data
from .time_budget import TimeBudget
from .timing import SECONDS_PER_GRAPH

#: Items on which the speed of an evaluation is measured.
SAMPLE = 64
#: Time of a pass, in evaluations of as many items as it looks at; rough, from networks of the docs.
PASS_ITEMS = {"simplify": 20, "quantize-static": 256 * 4, "prune-channels": 256 * 20}
#: Most candidates of the pruning ladder that a search visits.
RUNGS = 4


@dataclass(frozen=True)
class EstimateLine:
    """One line of the estimate.

    Attributes:
        stage: stage of the search.
        name: name of the candidate, or of the work.
        seconds: estimated time.
        always: true where it is tried in any case, not only where an earlier one leads to it.
    """

    stage: str
    name: str
    seconds: float
    always: bool = True


def estimate(  # noqa: PLR0917 - arguments of `optimize`, in its order
    model: Model,
    data: Dataset,
    evaluation: Dataset | None,
    metric: str | None,
    passes: Sequence[str] | None,
    ctx: Context,
    budget: TimeBudget,
) -> list[EstimateLine]:
    """List the candidates with seconds, from a short evaluation of the original on this machine."""
    splits = split_data(data, evaluation, seed=ctx.seed)
    plan = SearchPlan.of(model, splits.calibration, ctx.target, passes, timed=is_here(ctx.target))
    chosen, few = find_metric(metric, splits.selection), splits.selection.take(SAMPLE)
    start = time.monotonic()
    evaluate(model, few, chosen, reference=model, config=SessionConfig(threads=usable_cpus()))
    item = (time.monotonic() - start) / max(1, len(few))
    full = item * len(splits.selection)

    def line(stage: str, recipe: Recipe, *, always: bool = True) -> EstimateLine:
        spent = sum(item * PASS_ITEMS.get(p.name(), 20) for p in recipe.passes)
        return EstimateLine(stage, recipe.name, spent + full, always)

    lines = [EstimateLine("original", "evaluated on selection and test", 2 * full)]
    lines += [line("first", r) for r in plan.first()]
    lines += [line("int8", r) for r in (*plan.others(), *plan.own_recipes())]
    lines += [line("int8", r, always=False) for r in plan.rescues(0.01, "")]
    if plan.allows("prune-channels"):
        lines += [line("prune", plan.pruned(s), always=False) for s in SHARES[:RUNGS]]
        lines.append(line("combine", plan.quantized(plan.pruned(SHARES[2])), always=False))
    if budget.train_seconds and plan.allows("finetune"):
        work = "find the strength of pruning, then train"
        lines.append(EstimateLine("train", work, budget.train_seconds))
    graphs = sum(entry.always for entry in lines)
    work = f"{graphs} graphs, at most this long each"
    lines.append(EstimateLine("measure", work, SECONDS_PER_GRAPH * graphs))
    return [*lines, EstimateLine("confirm", "the winner and the runner-up anew", 2 * SECONDS_EACH)]


def estimate_lines(lines: Sequence[EstimateLine]) -> list[str]:
    """Return the estimate as text."""
    rows = [
        f"{entry.stage:9} {entry.name:45} {entry.seconds:7.0f} s"
        f"{'' if entry.always else '   only where an earlier one leads to it'}"
        for entry in lines
    ]
    least = sum(entry.seconds for entry in lines if entry.always)
    most = sum(entry.seconds for entry in lines)
    return [*rows, "", f"about {least:.0f} to {most:.0f} s; nothing was made"]
