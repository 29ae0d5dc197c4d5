"""Training within the search: short runs over strengths, then a long one for the best of them.

Successive halving (Jamieson and Talwalkar, "Non-stochastic best arm identification and
hyperparameter optimization", 2016) over how strongly a model is pruned, with the size of the drop
after a short run as the evidence: a drop falls further with more training, so the strongest whose
drop is within reach gets most of the time. What each run leaves is a candidate of its own, float
and in int8; where the long run fails, what is left of the time trains the strongest pruning that
keeps its quality untrained through int8, which needs least of all.
"""

from __future__ import annotations

from collections.abc import Collection

from trimtab.plan import SHARES, Plan
from trimtab.recipe import Recipe
from trimtab.result import Result

from .pruning import Ladder
from .run import Search

#: Share of the training that the short runs over all strengths get.
SHORT = 0.3
#: Of the rest, for the float model; what is left trains it through int8.
LONG = 0.85
#: A drop of so many times the allowed one after a short run may still come back: at 0.5 points a
#: resnet56 without 30% of its int8 time came from 1.9 points to 0.4 in six times as long.
REACH = 4.0
#: A drop of so many times the allowed one after the long run may come back through int8.
NEARLY = 1.3


def train(search: Search, plan: Plan, ladder: Ladder) -> None:
    """Add trained candidates, as far as the time for training goes.

    Args:
        search: what is known so far.
        plan: what may be tried.
        ladder: at the strongest pruning that keeps its quality untrained.
    """
    total, threads = search.spent.effort.train_seconds, search.spent.effort.training_threads
    if total is None or not plan.allows("recover"):
        return
    if not plan.allows("prune-channels"):
        _through_int8(search, plan, Recipe("float", plan.start()), total, threads)
        return
    untouched = ladder.base
    strongest = _short_runs(ladder, SHORT * total, threads)
    if strongest is None or strongest.recipe is None:
        search.log.note("train", "no strength is within reach of training", search.results)
        _through_int8(search, plan, untouched, (1 - SHORT) * total, threads)
        return
    left = (1 - SHORT) * total
    longer = plan.recovered(strongest.recipe, LONG * left, threads)
    found = search.attempt("train", [longer])
    base = found[0].recipe if found and not found[0].failure else None
    if base is not None and plan.halves():
        search.attempt("train", [plan.halved(base)])
    if base is None or not _nearly(search, found[0]):
        base = untouched
        search.log.note(
            "train", f"{longer.name} stays too far off: the rest of the time is for {base.name}"
        )
    _through_int8(search, plan, base, (1 - LONG) * left, threads)


def _nearly(search: Search, result: Result) -> bool:
    """Whether training through int8 may bring a trained model the rest of the way."""
    return search.drop(result) <= NEARLY * max(search.constraints.max_drop, 1e-3)


def strengths(kept: Collection[float]) -> tuple[float, ...]:
    """Strengths to train, the mildest first: those that cost too much as they are.

    Args:
        kept: shares of the time at which the pruned model keeps its quality untrained.
    """
    strongest = min(kept, default=1.0)
    return tuple(share for share in SHARES if share < strongest) or SHARES[-1:]


def _short_runs(ladder: Ladder, total: float, threads: int) -> Result | None:
    """One short run for each strength, milder to stronger, each going on from the one before.

    Returns:
        The strongest within reach.
    """
    search, plan, best, halved = ladder.search, ladder.plan, None, False
    todo = list(strengths(ladder.kept))
    seconds = total / (len(todo) + 1)
    while todo:
        share = todo.pop(0)
        pruned = ladder.pruned(share)
        if pruned is None and best is None and not todo:
            pruned = ladder.base  # a coarse network went as far as it can untrained
        if pruned is None:
            continue
        found = search.attempt("train", [plan.recovered(pruned, seconds, threads)])
        if not found and not search.spent.over:
            # So short a run may have found nothing better than where it began.
            found = _untrained(search, pruned)
        if not found or found[0].failure or found[0].recipe is None:
            break
        if not _within_reach(search, found[0], seconds):
            # Half of the step that went too far, once.
            todo = [] if halved else [ladder.between(share)]
            halved = True
            continue
        if search.keeps(found[0]) and plan.allows("quantize-static"):
            search.attempt("train", [plan.quantized(found[0].recipe)])
        ladder.go_on_from(found[0].recipe, share)
        best = found[0]
    return best


def _within_reach(search: Search, found: Result, seconds: float) -> bool:
    """Whether more training may bring back what a short run left lost; said in the log."""
    lost, allowed = search.drop(found), search.constraints.max_drop
    within = lost <= REACH * max(allowed, 1e-3)
    search.log.note(
        "train",
        f"{found.name}: drop {lost:.4f} after {seconds:.0f} s, "
        f"{'within' if within else 'beyond'} reach of {allowed:g}",
        search.results,
        candidate=found.name,
        drop=lost,
        within_reach=within,
    )
    return within


def _untrained(search: Search, pruned: Recipe) -> list[Result]:
    """The pruned model that a run began from, made now where it was not."""
    known = search.named(pruned.name)
    return [known] if known is not None else search.attempt("train", [pruned])


def _through_int8(search: Search, plan: Plan, base: Recipe, seconds: float, threads: int) -> None:
    """Int8 behind a trained model, and trained on through its rounding."""
    if not plan.allows("quantize-static"):
        return
    quantized = plan.quantized(base)
    search.attempt("train", [quantized, plan.trained_through(quantized, seconds, threads)])
