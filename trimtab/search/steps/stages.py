"""The staged search: what a good engineer tries by hand, in the same order.

    first        the recipe most likely to do (int8; float16 on a GPU), timed until it is known to
                 be faster
    int8         the model cleaned up and the other families; other ranges, then the best known
                 passes with layers left float, where the plain recipes lose too much; weights
                 in 8 bits for float arithmetic
    prune        remove channels in steps, from mild to strong while quality lasts; for the int8
                 kernels, and evaluated in int8, where int8 turned out to be worth it
    combine      pruning and int8, or float16
    train        find how strongly to prune, training a while at each strength, then train longer
    engines      the best so far on other execution providers, where the user names some
    store        keep the weights of the best in 16 or 8 bits, where it computes in float

The space is a ladder of strengths times a handful of families, some thirty points of which a dozen
are visited, since each stage starts from the result of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.errors import OptionError
from trimtab.core.ort.engines import Engine

from ..recipe import Recipe
from ..run import Search
from ..speed.timing import COARSE, SECONDS_PER_GRAPH, VERDICT_ALONE
from .engines import try_engines
from .plan import SearchPlan, claims_no_speed, computes_in_float
from .pruning import for_int8, own_limit, prune
from .training import train

#: Most seconds of measurement of a graph where a verdict is enough, as in the first stage.
SOON = 6.0


def staged(search: Search, plan: SearchPlan, engines: Sequence[Engine] = ()) -> None:
    """Run all stages; each stops where time or trials are used up."""
    search.attempt("first", plan.first() or plan.floats()[:1])
    search.measure("first", SOON, width=VERDICT_ALONE)
    search.report_if_satisfied()
    reported = _report_first_usable(search, "first")
    search.attempt("int8", plan.others())
    search.attempt("own", plan.own_recipes())
    _rescue(search, plan)
    search.measure("int8")
    search.report_if_satisfied()
    reported = reported or _report_first_usable(search, "int8")
    plan = for_int8(search, plan)
    ladder = prune(search, plan)
    # Rungs lie far apart, and the best runs once more; but the ends of intervals may bind.
    search.measure("prune", width=None if search.constraints.limits_time else COARSE)
    reported = reported or _report_first_usable(search, "prune")
    if search.spent.budget.train_seconds is not None:
        train(search, plan, ladder)
        search.measure("train")
        if not reported:
            _report_first_usable(search, "train")
    try_engines(search, engines, plan)
    _measure_longer(search)
    _store_best(search, plan)
    search.with_float(plan.floats()[0])


def _measure_longer(search: Search) -> None:
    """Measure longer those that may win and have no verdict, as where loading is slow or in noise.

    A round gives each twice the time of the one before, within what the search may take. A user
    who stopped a measurement wants no further one.
    """
    for times in (2, 4):
        stopped = any(r.comparison is not None and r.comparison.interrupted for r in search.results)
        if not stopped and not search.spent.over:
            search.measure("settle", times * SECONDS_PER_GRAPH, settle=True)


def _store_best(search: Search, plan: SearchPlan) -> None:
    """Store the weights of the best in fewer bits, where it computes in float."""
    best = search.best()
    base = best.recipe if best is not None else None
    if base is not None and claims_no_speed(base):
        base = None
    if base is None or computes_in_float(base):
        _store(search, plan, base)
        search.measure("store")


def _store(search: Search, plan: SearchPlan, base: Recipe | None = None) -> None:
    """Store weights in 16 and in 8 bits."""
    search.attempt("store", plan.stored(search.constraints.max_drop, base))


def fixed(search: Search, recipes: Sequence[Recipe], engines: Sequence[Engine] = ()) -> None:
    """Try all the recipes that a user gives, and the best of them on each engine.

    Raises:
        OptionError: there is none.
    """
    if not recipes:
        raise OptionError("there is no recipe to try", where="recipes")
    search.attempt("recipes", recipes)
    search.measure("recipes")
    try_engines(search, engines)


def _report_first_usable(search: Search, stage: str) -> bool:
    """Report when the first candidate satisfied all constraints; return whether one did."""
    best = search.best()
    if best is None:
        return False
    search.log.note(
        stage,
        f"first usable candidate after {search.log.seconds:.0f} s: {best.name}",
        search.results,
        candidate=best.name,
        seconds=round(search.log.seconds, 1),
    )
    return True


def _rescue(search: Search, plan: SearchPlan) -> None:
    """Try other ways to int8, one after the other, until one keeps its quality.

    First narrow weights for float arithmetic, which cost least time and are likely to do.
    """
    plain = [r for r in search.results if r.name.startswith("int8") and not r.failure]
    if not plain or any(search.keeps(r) for r in plain):
        return
    _store(search, plan)
    for recipe in plan.rescues(*own_limit(search)):
        found = search.attempt("int8", [recipe])
        if found and search.keeps(found[0]):
            return
