"""Training within the search: first how strongly to prune, then the rest of the time for that.

The time is cut into slices. Half of them try strengths: a step is cut out of the strongest model so
far and trained for one slice; where what is lost then is within reach of a longer training, the
next step is cut out of the trained one (iterative pruning: Han et al., "Learning both weights and
connections", 2015; Renda et al., "Comparing rewinding and fine-tuning", 2020). The other half goes
into one run on the last that was within reach, since a long run at a high rate brings back more
than several short ones. What kept its quality on the way remains a candidate.
"""

from __future__ import annotations

from ..recipe import Recipe
from ..result import Result
from ..run import Search
from .plan import SearchPlan
from .pruning import Ladder, quantize

#: Slices of the time, and those of them that try strengths.
SLICES, TRIALS = 6, 3
#: Share of the latency that a step removes from a model that has lost nothing.
STEP = 0.25
#: A drop of so many times the allowed one after a slice can be recovered in those that are left: a
#: resnet56 without 43% of its int8 time, with 0.5 points allowed, had lost 7 points untrained, 1.3
#: after a slice and 0.4 after two.
REACH = 2.5


def train(search: Search, plan: SearchPlan, ladder: Ladder) -> None:
    """Add trained candidates, as far as the time for training goes.

    The ladder stands at the strongest pruning that keeps its quality untrained.
    """
    total, threads = search.spent.budget.train_seconds, search.spent.budget.training_threads
    if total is None or not plan.allows("finetune"):
        return
    last, left, seconds = None, SLICES, total / SLICES
    if plan.allows("prune-channels"):
        last, left = _strengths(ladder, seconds, threads)
    if not left or search.spent.over:
        return
    if last is None:
        _with_the_rest(search, plan, ladder.base, left * seconds, threads)
        return
    for found in search.attempt("train", [plan.finetuned(last, left * seconds, threads)]):
        _offer(search, plan, found)


def _strengths(ladder: Ladder, seconds: float, threads: int) -> tuple[Recipe | None, int]:
    """Prune and train for a slice by turns; the more is lost, the smaller the next step.

    Returns:
        The strongest trained float recipe that is within reach, and the slices that are left.
    """
    search, last, left, step = ladder.search, None, SLICES, STEP
    lost = search.constraints.max_drop  # the strongest untrained one has nearly used it up
    while left > SLICES - TRIALS and not search.spent.over:
        share = round(ladder.reached * (1 - step * (1 - lost / _limit(search))), 3)
        pruned = ladder.pruned(share)
        if pruned is None:  # there is no further step
            break
        found = _trained(ladder, pruned, seconds, threads)
        left -= 1
        if found is None or found.recipe is None:
            step /= 2
            continue
        last, lost = found.recipe, max(0.0, search.drop(found))
        ladder.go_on_from(last, share)
    return last, left


def _trained(ladder: Ladder, pruned: Recipe, seconds: float, threads: int) -> Result | None:
    """Train a pruned model for a slice; None where what it lost is out of reach."""
    search, plan = ladder.search, ladder.plan
    found = search.attempt("train", [plan.finetuned(pruned, seconds, threads)])
    if not found and not search.spent.over:  # nothing better than where training began
        known = search.named(pruned.name)
        found = search.attempt("train", [pruned]) if known is None else [known]
    if not found or found[0].failure or not _within_reach(search, found[0], seconds):
        return None
    _offer(search, plan, found[0])
    return found[0]


def _offer(search: Search, plan: SearchPlan, found: Result) -> None:
    """Offer a trained model that has come back in the precision that pruning is for."""
    if not search.keeps(found) or found.recipe is None:
        return
    if plan.halves():
        search.attempt("train", [plan.halved(found.recipe)])
    if plan.allows("quantize-static"):
        quantize(search, plan, found.recipe, "train")


def _within_reach(search: Search, found: Result, seconds: float) -> bool:
    """Return whether more training may bring back what is lost, and log it."""
    lost, limit = search.drop(found), _limit(search)
    within = lost <= limit
    where = f"{'within' if within else 'beyond'} reach ({limit:g})"
    text = f"{found.name}: drop {lost:.4f} after {seconds:.0f} s, {where}"
    evidence = {"candidate": found.name, "drop": lost, "within_reach": within}
    search.log.note("train", text, search.results, **evidence)
    return within


def _limit(search: Search) -> float:
    """Return the largest drop after a slice that may come back."""
    return REACH * max(search.constraints.max_drop, 1e-3)


def _with_the_rest(
    search: Search, plan: SearchPlan, base: Recipe, seconds: float, threads: int
) -> None:
    """Finetune through int8 behind the strongest, or in float where int8 is not used."""
    if not plan.allows("quantize-static"):
        search.attempt("train", [plan.finetuned(base, seconds, threads)])
        return
    quantized = plan.quantized(base)
    search.attempt("train", [quantized, plan.trained_through(quantized, seconds, threads)])
