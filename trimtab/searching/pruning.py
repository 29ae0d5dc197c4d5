"""How strongly to prune: a ladder of shares of the time, from mild to strong while quality lasts.

Where static int8 keeps the quality and is faster, channels are chosen by the latency of the int8
kernels and each rung is judged in int8; else by that of the float ones, and int8 is tried behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.choice import speedup
from trimtab.core.callables import is_callable_spec
from trimtab.core.metric import METRICS
from trimtab.plan import MILDEST, SHARES, Plan
from trimtab.result import Result

from .run import Search

#: Speed-up of static int8 from which on pruning is for its kernels.
WORTH = 1.1


def for_int8(search: Search, plan: Plan) -> Plan:
    """The plan, with pruning for int8 kernels where int8 is worth it and can be timed here."""
    static = search.named("int8 static")
    if static is None or not (search.keeps(static) and plan.timed and search.measures):
        return plan
    ratio = speedup(static)
    if plan.target.isa == "gpu" or ratio is None or ratio.value < WORTH:
        return plan
    return replace(plan, precision="int8")


def prune(search: Search, plan: Plan) -> list[float]:
    """All rungs that are worth looking at; the shares that keep their quality, strongest last."""
    if not plan.allows("prune-channels"):
        return []
    kept = _ladder(search, plan)
    if plan.precision == "float":
        _combine(search, plan, kept)
    return kept


def _ladder(search: Search, plan: Plan) -> list[float]:
    """Down the ladder; half a rung back, or the mildest, where one loses too much."""
    kept: list[float] = []
    for share in SHARES:
        found = search.attempt("prune", [plan.rung(share)])
        if not found and not search.spent.over:
            continue  # the same widths as a step before: the next one cuts more
        if found and _keeps(search, plan, share, found[0]):
            kept.append(share)
            continue
        between = round((kept[-1] + share) / 2, 2) if kept else MILDEST
        found = search.attempt("prune", [plan.rung(between)]) if not search.spent.over else []
        if found and _keeps(search, plan, between, found[0]):
            kept.append(between)
        break
    return kept


def _keeps(search: Search, plan: Plan, share: float, found: Result) -> bool:
    """Whether a rung keeps its quality; int8 may leave layers float if that is what it takes."""
    if search.keeps(found) or plan.precision == "float":
        return search.keeps(found)
    if not plan.allows("quantize-auto"):
        return False
    pruned = search.attempt("prune", [plan.pruned(share)])
    if not pruned or not search.keeps(pruned[0]):
        return False  # it is pruning that costs too much
    last = plan.best_known(search.constraints.max_drop, metric_of(search))
    again = search.attempt("combine", [plan.quantized(plan.pruned(share), last)])
    return bool(again) and search.keeps(again[0])


def _combine(search: Search, plan: Plan, kept: Sequence[float]) -> None:
    """Int8 behind pruning: the strongest that keeps its quality, or else the next milder one.

    On a GPU float16 behind the strongest too.
    """
    bases = [plan.pruned(share) for share in reversed(kept)]
    if bases and plan.halves():
        search.attempt("combine", [plan.halved(bases[0])])
    if not plan.allows("quantize-static"):
        return
    for base in bases:
        found = search.attempt("combine", [plan.quantized(base)])
        if found and not search.keeps(found[0]) and plan.allows("quantize-auto"):
            last = plan.best_known(search.constraints.max_drop, metric_of(search))
            found = search.attempt("combine", [plan.quantized(base, last)])
        if found and search.keeps(found[0]):
            return


def metric_of(search: Search) -> str:
    """The metric's name for passes that judge themselves; their own choice where it has none."""
    metric = search.judge.metric
    known = metric.name in METRICS or is_callable_spec(metric.name)
    return metric.name if known and metric.wants == "labels" else ""
