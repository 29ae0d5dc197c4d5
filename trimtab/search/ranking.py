"""Ranking of candidates: pure functions over results, so that every rule can be tested.

Of those that satisfy all constraints the one with the smallest goal wins. Where that is time, a tie
within the intervals goes to the smaller file, and among files of one size to the better quality on
the selection split; one not faster than the original beyond its interval is never called a success.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.core.context import Ratio
from trimtab.core.data import Floats
from trimtab.core.metric import MetricDrop, Quality
from trimtab.core.metrics.metric import ROUNDING

from .loss import without_one
from .result import TIMES, Constraints, Goal, Result, cost
from .standing import is_bounded

#: Costs that differ by less than this share count as equal.
EQUAL = 1.01
#: Fewest items of which one may be left out: of fewer each is a large part of all that is known.
ITEMS_TO_SPARE = 20
#: Estimated speed-up from which a candidate whose verdict is open is worth a fresh run, and worth
#: more than the float model where it stays open.
HOPE = 1.05


@dataclass(frozen=True)
class Objection:
    """One constraint that a candidate violates.

    Attributes:
        constraint: its name; `made` where there is no candidate at all.
        text: one sentence without a full stop.
        excess: excess over the limit, as a share of it; infinite where that is not known.
    """

    constraint: str
    text: str
    excess: float


def speedup(result: Result, *, confirmed: bool = False) -> Ratio | None:
    """Return the speed-up over the original with its 95% interval; None where it is not known.

    On a target that is not this machine it is the prediction of the cost model. The confirmed one
    is that of the fresh run, where there was one with an interval.
    """
    c = result.comparison
    if confirmed and result.confirmation is not None and is_bounded(result.confirmation):
        c = result.confirmation
    if c is not None:
        return Ratio(c.ratio, c.low, c.high)
    known = result.predicted
    return None if known is None else Ratio(known, known, known)


def drop(result: Result, original: Result, split: str = "selection") -> float:
    """Return the loss of the metric against the original on a split of the data."""
    mine, base = getattr(result, split), getattr(original, split)
    return float("inf") if mine is None or base is None else mine.drop_from(base)[0]


def loses_too_much(
    result: Result, original: Result, constraints: Constraints, split: str = "selection"
) -> str | None:
    """Return why a candidate's quality is too low; None where it is not.

    One item never decides: without the one that costs most it would still lose too much.
    """
    mine = getattr(result, split)
    pairs = zip(
        losses(result, original, constraints, split),
        item_drops(result, original, split) if mine is not None else [None],
        strict=False,
    )
    broken = [loss for loss, drops in pairs if loss.broken and not _one_decides(drops, loss.limit)]
    if not constraints.max_drops:  # of one metric nobody asks which it is
        return f"loses {broken[0].drop:.4f}, {broken[0].limit:g} is allowed" if broken else None
    return "; ".join(map(str, broken)) or None


def losses(
    result: Result, original: Result, constraints: Constraints, split: str = "selection"
) -> list[MetricDrop]:
    """Return what each metric lost against the original on a split of the data."""
    mine, base = getattr(result, split), getattr(original, split)
    if mine is None or base is None:
        return [MetricDrop("quality", math.inf, constraints.max_drop)]
    found: list[MetricDrop] = mine.losses_from(base, constraints.max_drop)
    return found


def worst_loss(
    result: Result, original: Result, constraints: Constraints, split: str = "selection"
) -> float:
    """Return the loss of the metric nearest to its limit, in units of the first."""
    limit = constraints.max_drop
    return max(loss.in_units_of(limit) for loss in losses(result, original, constraints, split))


def item_drops(result: Result, original: Result, split: str = "selection") -> list[Floats | None]:
    """Return for each metric the loss of each item of a split (N,), paired.

    None where items have no scores.
    """
    mine, base = getattr(result, split), getattr(original, split)
    if mine is None or base is None:
        return [None]
    pairs = [(mine, base), *zip(mine.others, base.others, strict=False)]
    return [_paired(a, b) for a, b in pairs]


def _paired(mine: Quality, base: Quality) -> Floats | None:
    if mine.items is None or base.items is None:
        return None
    if len(mine.items) != len(base.items) or not len(mine.items):
        return None
    sign = -1.0 if base.lower_is_better else 1.0
    return np.asarray(sign * (base.items - mine.items), np.float64)


def _one_decides(drops: Floats | None, limit: float) -> bool:
    """Return whether a loss beyond its limit is that of one item alone."""
    if drops is None or len(drops) < ITEMS_TO_SPARE:
        return False
    return without_one(drops) <= limit + ROUNDING


def violations(
    result: Result, original: Result, constraints: Constraints, split: str = "selection"
) -> list[Objection]:
    """Return the constraints that a candidate violates, with how far it is beyond each."""
    if result.failure:
        return [Objection("made", result.failure, math.inf)]
    if result.dropped:
        return [_loses(result.dropped, worst_loss(result, original, constraints), constraints)]
    why = loses_too_much(result, original, constraints, split)
    lost = worst_loss(result, original, constraints, split)
    found = [_loses(why, lost, constraints)] if why else []
    found += _too_slow(result, constraints)
    if constraints.max_size and result.size_bytes > constraints.max_size:
        text = f"{result.size_bytes} bytes, {constraints.max_size} are allowed"
        found.append(Objection("max_size", text, result.size_bytes / constraints.max_size - 1))
    if constraints.max_rss is not None:
        found += _too_much_memory(result, constraints.max_rss)
    return found + _too_late(result, constraints)


def objections(
    result: Result, original: Result, constraints: Constraints, split: str = "selection"
) -> list[str]:
    """Return the sentences of the constraints that a candidate violates."""
    return [o.text for o in violations(result, original, constraints, split)]


def _loses(text: str, lost: float, constraints: Constraints) -> Objection:
    limit = constraints.max_drop
    return Objection("max_drop", text, (lost - limit) / max(limit, 1e-3))


def _too_slow(result: Result, constraints: Constraints) -> list[Objection]:
    wanted, ratio = constraints.min_speedup, speedup(result)
    if not wanted or (ratio is not None and ratio.low >= wanted):
        return []
    if ratio is None:
        text = f"no speed-up is known, {wanted:g}x is required"
        return [Objection("min_speedup", text, math.inf)]
    excess = wanted / ratio.low - 1 if ratio.low > 0 else math.inf
    return [Objection("min_speedup", f"speed-up {ratio} does not prove {wanted:g}x", excess)]


def _too_much_memory(result: Result, limit: int) -> list[Objection]:
    if result.rss_bytes is None:
        return [Objection("max_rss", "its peak memory was not measured", math.inf)]
    if result.rss_bytes <= limit:
        return []
    text = f"peak memory of {result.rss_bytes:.0f} bytes, {limit} are allowed"
    return [Objection("max_rss", text, result.rss_bytes / limit - 1)]


def _too_late(result: Result, constraints: Constraints) -> list[Objection]:
    limit_ns, percentile = constraints.max_latency_ns, constraints.percentile
    if limit_ns is None or result.comparison is None:
        return []
    places = dict(result.comparison.devices) or {"": result.comparison}
    found = []
    for name, comparison in places.items():
        latency_ns = comparison.candidate.percentile_ns(percentile / 100)
        on = f" on {name}" if name else ""
        if latency_ns is None:
            text = f"p{percentile:g} is not known{on}: too few runs; give more --time"
            found.append(Objection("max_latency", text, math.inf))
        elif latency_ns > limit_ns:
            took, allowed = f"{latency_ns / 1e6:.3f} ms{on}", f"{limit_ns / 1e6:g} ms is allowed"
            text = f"p{percentile:g} {took}, {allowed}"
            found.append(Objection("max_latency", text, latency_ns / limit_ns - 1))
    return sorted(found, key=lambda objection: -objection.excess)[:1]


def nearest_candidates(
    results: Sequence[Result], original: Result, constraints: Constraints, count: int = 3
) -> list[tuple[Result, list[Objection]]]:
    """Return those that violate the constraints by the least, the worst violation first."""
    broken = [(r, violations(r, original, constraints)) for r in results if r.failure is None]
    missed = [(r, sorted(v, key=lambda o: -o.excess)) for r, v in broken if v]
    return sorted(missed, key=lambda pair: (pair[1][0].excess, len(pair[1])))[:count]


def tied(a: Ratio, b: Ratio) -> bool:
    """Return whether two speed-ups are equal within noise: one lies in the other's interval."""
    return b.low <= a.value <= b.high or a.low <= b.value <= a.high


def preference(
    results: Sequence[Result], fallbacks: Sequence[Result] = (), goal: Goal = "latency"
) -> list[Result]:
    """Rank candidates from best to worst.

    Args:
        results: candidates that satisfy the constraints.
        fallbacks: forms of the float model that need no speed-up to be offered.
        goal: figure to minimize. For times those faster than the original are ranked, then those
            that may be, as far as the evidence goes, and then the fallbacks, the smallest first.
    """
    if goal not in TIMES:
        affordable = [r for r in results if math.isfinite(cost(r, goal))]
        return _one_by_one(affordable, lambda left: _cheapest(left, goal))
    faster = [r for r in results if (ratio := speedup(r)) is not None and ratio.faster]
    hoped = [r for r in results if r not in [*faster, *fallbacks] and may_be_faster(r)]
    ranked = _one_by_one(faster, _fastest) + sorted(hoped, key=_estimate, reverse=True)
    last = [r for r in fallbacks if r in results and r not in ranked]
    return ranked + sorted(last, key=lambda r: r.size_bytes)


def may_be_faster(result: Result) -> bool:
    """Return whether a candidate may be faster than the original, though it is not proved."""
    c = result.comparison
    return c is not None and c.verdict == "inconclusive" and c.ratio >= HOPE


def _one_by_one(
    results: Sequence[Result], winner: Callable[[Sequence[Result]], Result]
) -> list[Result]:
    """Rank results by taking the winner of those that are left, again and again."""
    left, ranked = list(results), list[Result]()
    while left:
        ranked.append(winner(left))
        left.remove(ranked[-1])
    return ranked


def _cheapest(results: Sequence[Result], goal: Goal) -> Result:
    """Return the one of least cost; of equal costs the faster, then the more accurate one."""
    least = min(cost(r, goal) for r in results)
    ties = [r for r in results if cost(r, goal) <= EQUAL * least]
    return max(ties, key=lambda r: (_estimate(r), _quality(r)))


def _fastest(results: Sequence[Result]) -> Result:
    """Return the smallest file of the fastest; of files of one size the one of best quality.

    The target's own engine needs no further package, so it goes before all others.
    """
    best = speedup(max(results, key=_estimate))
    ties = [r for r in results if (own := speedup(r)) and best and tied(own, best)]
    smallest = min(r.size_bytes for r in ties)
    small = [r for r in ties if r.size_bytes <= EQUAL * smallest]
    return max(small, key=lambda r: (r.engine is None, _quality(r), _estimate(r)))


def _quality(result: Result) -> float:
    return result.selection.merit if result.selection else 0.0


def _estimate(result: Result) -> float:
    ratio = speedup(result)
    return 0.0 if ratio is None else ratio.value


def explain(
    chosen: Result, ranked: Sequence[Result], fallbacks: Sequence[Result], goal: Goal = "latency"
) -> list[str]:
    """Explain the choice in sentences; figures are those of the fresh run where there is one."""
    ratio = speedup(chosen, confirmed=True)
    if goal not in TIMES:
        speed = f", and {ratio} as fast as the original" if ratio else ""
        unit = {"size": "bytes of file", "macs": "multiply-accumulates", "bytes": "bytes moved"}
        return [f"{chosen.name} has the least {unit[goal]}: {cost(chosen, goal):.0f}{speed}."]
    if chosen in fallbacks and (ratio is None or not ratio.faster):
        doubtful = [r.name for r in ranked if r.standing == "open" and r is not chosen]
        if doubtful:
            return [
                f"Whether {' or '.join(doubtful)} is faster than the original could not be settled "
                f"in the time, so this is {_float_form(chosen)}."
            ]
        return [
            "Nothing beats the float original beyond its interval on this machine, so this is "
            f"{_float_form(chosen)}."
        ]
    if chosen.standing == "open":
        return [unsettled(chosen)]
    lines = [f"{chosen.name} is {ratio} as fast as the original."]
    places = [r.name for r in ranked]
    behind = ranked[places.index(chosen.name) + 1 :] if chosen.name in places else []
    faster = [r for r in behind if r not in fallbacks and _beats(r, chosen)]
    if faster:
        names, verb = ", ".join(r.name for r in faster), "is" if len(faster) == 1 else "are"
        lines.append(
            f"{names} cannot be distinguished from it in time, and {verb} larger or less accurate."
        )
    return lines


def _float_form(chosen: Result) -> str:
    """Name a form of the float model."""
    if chosen.recipe is not None and len(chosen.recipe.passes) > 1:
        return "the float model with its weights stored in fewer bits: smaller, and as fast"
    return "the simplified float model"


def unsettled(result: Result) -> str:
    """Return what is known of the speed of a candidate that its fresh run did not settle."""
    before, c = speedup(result), result.confirmation
    again = "not measured" if c is None else str(Ratio(c.ratio, c.low, c.high))
    if before is not None and before.faster:
        known = f"faster in the search ({before}), not settled in the confirmation ({again})"
    else:
        known = f"not settled: {before} in the search, {again} in the confirmation"
    return f"{result.name} is {known}."


def _beats(a: Result, b: Result) -> bool:
    return _estimate(a) > _estimate(b) > 0
