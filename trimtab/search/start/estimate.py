"""`--dry-run`: the candidates that would be tried, and about how long each takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab.core.ort.engines import Engine

from ..confirmation.fresh_run import SECONDS_EACH
from ..recipe import Recipe
from ..speed.timing import SECONDS_PER_GRAPH
from ..splits import Splits
from ..steps.engines import FILES, beyond_cpu, own_form
from ..steps.plan import SHARES, SearchPlan
from ..time_budget import TimeBudget, pass_seconds


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


def estimate(
    plan: SearchPlan,
    item_s: float,
    splits: Splits,
    budget: TimeBudget,
    engines: Sequence[Engine] = (),
) -> list[EstimateLine]:
    """List the candidates with seconds, from the time of evaluating the original on one item.

    What an engine other than the CPU takes is not known beforehand: as long as the CPU, it says.
    """
    full = item_s * len(splits.selection)

    def line(stage: str, recipe: Recipe, *, always: bool = True) -> EstimateLine:
        making = sum(pass_seconds(p, item_s, len(splits.calibration)) for p in recipe.passes)
        return EstimateLine(stage, recipe.name, making + full, always)

    both = full + item_s * len(splits.test)
    lines = [EstimateLine("original", "evaluated on selection and test", both)]
    lines += [line("first", r) for r in plan.first()]
    lines += [line("int8", r) for r in (*plan.others(), *plan.own_recipes())]
    lines += [line("int8", r, always=False) for r in plan.rescues(0.01, "")]
    if plan.allows("prune-channels"):
        lines += [line("prune", plan.pruned(s), always=False) for s in SHARES]
        lines.append(line("combine", plan.quantized(plan.pruned(SHARES[2])), always=False))
    if budget.train_seconds and plan.allows("finetune"):
        work = "find the strength of pruning, then train"
        lines.append(EstimateLine("train", work, budget.train_seconds))
    for engine in beyond_cpu(engines):
        names = ["float", *("the best" if n == 0 else "the next best" for n in range(FILES))]
        lines += [EstimateLine("engines", f"{name} on {engine}", full) for name in names]
        lines += [
            line("engines", replace(r, name=f"{r.name} on {engine}"))
            for r in own_form(plan, engine)
        ]
    made = [entry.always for entry in lines if entry.stage != "train"]
    for always, more in ((True, ""), (False, " more")):
        if graphs := made.count(always):
            work = f"{graphs} graphs{more}, at most this long each"
            lines.append(EstimateLine("measure", work, SECONDS_PER_GRAPH * graphs, always))
    return [*lines, EstimateLine("confirm", "the winner and the runner-up anew", 2 * SECONDS_EACH)]


def span(lines: Sequence[EstimateLine], budget: TimeBudget) -> tuple[float, float]:
    """Return the least and the most seconds of an estimate, within the time limit."""
    limit = budget.seconds or math.inf
    least = sum(entry.seconds for entry in lines if entry.always)
    return min(least, limit), min(sum(entry.seconds for entry in lines), limit)


def estimate_lines(lines: Sequence[EstimateLine], budget: TimeBudget) -> list[str]:
    """Return the estimate as text."""
    rows = [
        f"{entry.stage:9} {entry.name:45} {entry.seconds:7.0f} s"
        f"{'' if entry.always else '   only where an earlier one leads to it'}"
        for entry in lines
    ]
    least, most = span(lines, budget)
    return [*rows, "", f"about {least:.0f} to {most:.0f} s; nothing was made"]
