"""Strength of pruning: a ladder of shares of the time, from mild to strong while quality lasts.

Where static int8 keeps the quality and is faster, channels are chosen by the latency of int8
kernels and each rung is evaluated in int8; else by that of float ones, and int8 is tried behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from trimtab.core.callables import is_callable_spec
from trimtab.core.metric import METRICS
from trimtab.passes import PruneChannels
from trimtab.passes.base import Pass
from trimtab.passes.pruning.structured.latency_table import latencies

from ..ranking import speedup
from ..recipe import Recipe
from ..result import Result
from ..run import Search
from ..speed.costs import costs
from ..store import key_of
from .plan import SHARES, SearchPlan

#: Smallest speed-up of static int8 for which pruning optimizes for its kernels.
WORTH = 1.1
#: A strength that is this close to the current one is not a step.
NO_STEP = 0.98
#: Share that a step leaves, where the strength that failed does not help to choose one.
USUAL_STEP = 0.85
#: Strengths tried between the last that keeps its quality and the first that does not.
HALVINGS = 2
#: A step that loses this many times the allowed drop is tried once more with another cut: a group
#: that only seemed to matter little, or a repair that did not hold, shows itself so.
FAR, LEAST_LIMIT = 4.0, 0.005
#: Share of the groups cut in such a step that keep all their channels then: those cut the most.
PROTECTED = 0.2


def for_int8(search: Search, plan: SearchPlan) -> SearchPlan:
    """Return the plan, with pruning for int8 kernels where int8 is worth it and can be timed."""
    static = search.named("int8 static")
    if static is None or not (search.keeps(static) and plan.timed and search.measures):
        return plan
    ratio = speedup(static)
    if plan.target.isa == "gpu" or ratio is None or ratio.value < WORTH:
        return plan
    return replace(plan, precision="int8")


@dataclass
class Ladder:
    """Strengths of pruning, each cut out of the strongest that kept its quality before.

    Which channels matter is another question once others are gone, so a way in several steps,
    repaired after each, loses less than one step does.

    Attributes:
        search: state of the search.
        plan: recipes that may be tried.
        base: float recipe of the strongest so far.
        measured: share of the original's time that `base` takes; None where nobody asked yet.
        kept: strengths that kept their quality.
    """

    search: Search
    plan: SearchPlan
    base: Recipe
    measured: float | None = 1.0
    kept: list[float] = field(default_factory=list)

    @property
    def reached(self) -> float:
        """Share of the original's time that `base` takes."""
        if self.measured is None:
            self.measured = self._share_of_time()
        return self.measured

    @property
    def out_of_time(self) -> bool:
        """True where no further step can be made."""
        return self.search.spent.over is not None or bool(self.search.cut_short)

    def pruned(self, share: float) -> Recipe | None:
        """Return the next strength; None where the last step, of a coarse network, went as far."""
        if share >= NO_STEP * self.reached:
            return None
        return self.plan.pruned(share, self.base, self.reached)

    def between(self, failed: float) -> float:
        """Halve the step to a strength that went too far, or else a usual step.

        Where layers are coarse, a step takes more than was asked for, and may end below a strength
        that failed when it was cut out of a wider network.
        """
        low = failed if failed < NO_STEP * self.reached else USUAL_STEP * self.reached
        return round((self.reached + low) / 2, 3)

    def go_on_from(self, recipe: Recipe, share: float) -> None:
        """Cut the next strengths out of this recipe."""
        self.kept.append(share)
        name = recipe.name.split(", int8")[0]
        self.base = replace(self.plan.float_part(recipe), name=name)
        self.measured = None

    def _share_of_time(self) -> float:
        """Return the share of the original's time, in the precision that pruning is for."""
        search, plan = self.search, self.plan
        both = [Recipe("float", plan.start()), self.base]
        if not plan.timed:
            store, feeds = search.builder.store, search.timer.feeds
            made = map(search.builder.model, both)
            before, after = (costs(m, feeds, search.ctx, store).macs for m in made)
            return float(after / max(1, before))
        # Most were made in that precision, so that they only need to be measured as they are.
        models = [search.builder.model(plan.rung(recipe)) for recipe in both]

        def measured() -> float:
            before, after = latencies(models, search.ctx)
            return float(after / before)

        digests = [model.digest for model in models]
        place = {"machine": search.builder.machine, "target": search.ctx.target.to_json()}
        key = key_of("share of time", models=digests, **place)
        return float(search.builder.store.value(key, measured))


def prune(search: Search, plan: SearchPlan) -> Ladder:
    """Try all rungs that are worth a look; the strongest that keeps its quality is the base."""
    ladder = Ladder(search, plan, Recipe("float", plan.start()))
    if plan.allows("prune-channels"):
        _descend(ladder)
        if plan.precision == "float":
            _combine(search, plan, ladder)
    return ladder


def _descend(ladder: Ladder) -> None:
    """Go down the ladder; from the first rung that loses too much go half a step back, twice."""
    for share in SHARES:
        if _try(ladder, share) is not False:
            continue
        failed = share
        for _ in range(HALVINGS):
            if ladder.out_of_time:
                return
            between = ladder.between(failed)
            failed = failed if _try(ladder, between) else between
        return


def _try(ladder: Ladder, share: float) -> bool | None:
    """Return whether a strength keeps its quality; None where it gives no other model."""
    search, plan, pruned = ladder.search, ladder.plan, ladder.pruned(share)
    if pruned is None:
        return None
    found = search.attempt("prune", [plan.rung(pruned)])
    if not found:
        return False if ladder.out_of_time else None
    found += _rescued(search, plan, pruned, found[0])
    if not search.keeps(found[-1]) and _is_bad_draw(search, found[0]):
        found += _cut_otherwise(ladder, share, found[0])
    best = found[-1]
    if not search.keeps(best) or best.recipe is None:
        return False
    ladder.go_on_from(best.recipe, share)
    return True


def _is_bad_draw(search: Search, failed: Result) -> bool:
    """Return whether a step lost so much more than is allowed that its cut is in doubt."""
    limit = max(search.constraints.max_drop, LEAST_LIMIT)
    return failed.failure is None and search.drop(failed) > FAR * limit


def _cut_otherwise(ladder: Ladder, share: float, failed: Result) -> list[Result]:
    """Try a step once more without the groups of which the failed cut took the largest share."""
    search, plan = ladder.search, ladder.plan
    hurt = most_cut(failed)
    if not hurt or ladder.out_of_time:
        return []
    pruned = plan.pruned(share, ladder.base, ladder.reached, protect=hurt)
    text = f"{failed.name} is far off: once more with all channels of {', '.join(hurt)}"
    search.log.note("prune", text, candidate=failed.name, protected=list(hurt))
    return search.attempt("prune", [plan.rung(pruned)])


def most_cut(result: Result) -> tuple[str, ...]:
    """Return the groups of which the last pruning of a model took the largest shares."""
    steps = result.model.lineage if result.model is not None else ()
    notes = [s.notes for s in steps if s.pass_name == PruneChannels.name()]
    groups = notes[-1].get("groups", ()) if notes else ()
    shares = {str(g["name"]): 1 - g["channels"][1] / g["channels"][0] for g in groups}
    ranked = sorted(shares, key=lambda name: -shares[name])
    return tuple(ranked[: max(1, round(PROTECTED * len(ranked)))])


def _rescued(search: Search, plan: SearchPlan, pruned: Recipe, found: Result) -> list[Result]:
    """Try int8 with layers left float, where rounding and not pruning costs too much."""
    if search.keeps(found) or plan.precision == "float" or not plan.allows("quantize-auto"):
        return []
    alone = search.attempt("prune", [pruned])
    if not alone or not search.keeps(alone[0]):
        return []
    return search.attempt("combine", [plan.quantized(pruned, _best_known(search, plan))])


def _combine(search: Search, plan: SearchPlan, ladder: Ladder) -> None:
    """Try int8 behind the strongest pruning that keeps its quality, or else the next milder one.

    On a GPU float16 behind the strongest too.
    """
    found = [search.named(plan.pruned(share).name) for share in reversed(ladder.kept)]
    bases = [result.recipe for result in found if result is not None and result.recipe]
    if bases and plan.halves():
        search.attempt("combine", [plan.halved(bases[0])])
    if not plan.allows("quantize-static"):
        return
    for base in bases:
        made = quantize(search, plan, base, "combine")
        if made and search.keeps(made[0]):
            return


def quantize(search: Search, plan: SearchPlan, base: Recipe, stage: str) -> list[Result]:
    """Try int8 behind a float recipe; where that loses too much, the best known passes."""
    made = search.attempt(stage, [plan.quantized(base)])
    if made and not search.keeps(made[0]) and plan.allows("quantize-auto"):
        return search.attempt(stage, [plan.quantized(base, _best_known(search, plan))])
    return made


def _best_known(search: Search, plan: SearchPlan) -> Pass:
    return plan.best_known(*own_limit(search))


def own_limit(search: Search) -> tuple[float | dict[str, float], str]:
    """Return limit and metric for passes that evaluate themselves on calibration data.

    The metric is empty, which is their own choice, where it has no name or where those data have no
    labels for it; of several metrics those that they can compute are limited.
    """
    metric, constraints = search.evaluator.metric, search.constraints
    batch = next(iter(search.evaluator.splits.calibration.take(1)), None)
    labelled = batch is not None and batch.labels is not None
    usable = {
        m.text: m.limit
        for m in (metric, *metric.others)
        if (m.name in METRICS or is_callable_spec(m.text)) and (labelled or m.wants != "labels")
    }
    if not metric.others:
        known = metric.text in usable and metric.wants == "labels"
        return constraints.max_drop, metric.text if known else ""
    limits = {name: limit for name, limit in usable.items() if limit is not None}
    return (limits, "") if limits else (constraints.max_drop, "")
