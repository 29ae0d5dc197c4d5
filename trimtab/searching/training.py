"""Training within the search: prune and train in turns, as long as the quality comes back.

The time is cut into slices. Each trains a model that was cut a step out of the strongest that keeps
its quality; while what is lost is within reach the next slice goes on with it, and once it has come
back the next step is cut out of the trained one (iterative pruning: Han et al., "Learning both
weights and connections", 2015; Renda et al., "Comparing rewinding and fine-tuning", 2020). Nothing
is staked on one strength: what came back last remains, float and in int8. Slices that are left when
a step and half of it were too much train that model through int8.
"""

from __future__ import annotations

from trimtab.plan import Plan
from trimtab.recipe import Recipe
from trimtab.result import Result

from .pruning import Ladder
from .run import Search

#: Parts of the time.
SLICES = 6
#: Share of the time that a step leaves.
STEP = 0.88
#: A drop of so many times the allowed one may still come back: with 0.5 points allowed a resnet56
#: without 30% of its int8 time came from 1.9 points to 0.4 in six times as long, one without 45%
#: from 2.7 to 1.2.
REACH = 4.0


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
    left, seconds = SLICES, total / SLICES
    if plan.allows("prune-channels"):
        left = _in_turns(ladder, seconds, threads)
    if left and not search.spent.over:
        _with_the_rest(search, plan, ladder.base, left * seconds, threads)


def _in_turns(ladder: Ladder, seconds: float, threads: int) -> int:
    """Prune and train until a step and half a step were too much; the slices that are left."""
    left, steps = SLICES, [STEP, (1 + STEP) / 2]
    while left and steps:
        share = round(steps[0] * ladder.reached, 3)
        found, used = _brought_back(ladder, share, seconds, threads, left)
        left -= used
        if found is None or found.recipe is None:
            steps.pop(0)
            continue
        ladder.go_on_from(found.recipe, share)
    return left


def _brought_back(
    ladder: Ladder, share: float, seconds: float, threads: int, slices: int
) -> tuple[Result | None, int]:
    """A step further, trained until it keeps its quality; None where that is out of reach.

    Returns:
        The trained float model, and the slices that it took.
    """
    search, plan, recipe = ladder.search, ladder.plan, ladder.pruned(share)
    if recipe is None:  # so little is left that a step rounds to nothing
        return None, 0
    for used in range(1, slices + 1):
        found = search.attempt("train", [plan.recovered(recipe, seconds, threads)])
        idle = not found and not search.spent.over
        if idle:  # training has found nothing better than where it began
            found = _untrained(search, recipe)
        if not found or found[0].failure or found[0].recipe is None:
            return None, used - 1
        within = _within_reach(search, found[0], used * seconds)
        if _keeps(search, plan, found[0]):
            return found[0], used
        if idle or not within:
            return None, used
        recipe = found[0].recipe
    return None, slices


def _keeps(search: Search, plan: Plan, found: Result) -> bool:
    """Whether a trained model has come back, in the precision that pruning is for."""
    if not search.keeps(found) or found.recipe is None:
        return False
    if plan.halves():
        search.attempt("train", [plan.halved(found.recipe)])
    if not plan.allows("quantize-static"):
        return True
    quantized = search.attempt("train", [plan.quantized(found.recipe)])
    return plan.precision == "float" or any(search.keeps(result) for result in quantized)


def _within_reach(search: Search, found: Result, seconds: float) -> bool:
    """Whether more training may bring back what is lost; said in the log."""
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


def _with_the_rest(search: Search, plan: Plan, base: Recipe, seconds: float, threads: int) -> None:
    """Int8 behind the strongest, trained on through its rounding; float where int8 is not used."""
    if not plan.allows("quantize-static"):
        search.attempt("train", [plan.recovered(base, seconds, threads)])
        return
    quantized = plan.quantized(base)
    search.attempt("train", [quantized, plan.trained_through(quantized, seconds, threads)])
