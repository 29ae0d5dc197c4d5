"""Which candidate is best: pure functions over results, so that every rule can be tested.

The fastest that holds all constraints wins; a tie inside the intervals goes to the smaller file,
and among files of one size to the better quality on the part of the data that decides. A candidate
that is not faster than the original beyond its interval is never called a success.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.context import Ratio
from trimtab.result import Constraints, Result


def speedup(result: Result) -> Ratio | None:
    """The speed-up over the original with its 95% interval; None where it was not measured."""
    c = result.comparison
    return None if c is None else Ratio(c.ratio, c.low, c.high)


def drop(result: Result, original: Result, part: str = "selection") -> float:
    """Loss of the metric against the original on a part of the data."""
    mine, base = getattr(result, part), getattr(original, part)
    return float("inf") if mine is None or base is None else mine.drop_from(base)[0]


def loses_too_much(
    result: Result, original: Result, constraints: Constraints, part: str = "selection"
) -> str | None:
    """Why a candidate's quality does not do; None where it does."""
    lost = drop(result, original, part)
    if lost <= constraints.max_drop:
        return None
    return f"loses {lost:.4f}, {constraints.max_drop:g} is allowed"


def objections(
    result: Result, original: Result, constraints: Constraints, part: str = "selection"
) -> list[str]:
    """Why a candidate does not hold the constraints; empty where it does."""
    if result.failure:
        return [result.failure]
    lost = loses_too_much(result, original, constraints, part)
    found = [lost] if lost else []
    ratio = speedup(result)
    if constraints.min_speedup and (ratio is None or ratio.low < constraints.min_speedup):
        found.append(f"speed-up {ratio} does not prove {constraints.min_speedup:g}x")
    if constraints.max_size and result.size_bytes > constraints.max_size:
        found.append(f"{result.size_bytes} bytes, {constraints.max_size} are allowed")
    return found + _latency_objections(result, constraints)


def _latency_objections(result: Result, constraints: Constraints) -> list[str]:
    if constraints.max_latency_ns is None or result.comparison is None:
        return []
    percentile = constraints.percentile
    latency_ns = result.comparison.candidate.percentile_ns(percentile / 100)
    if latency_ns is None:
        return [f"p{percentile:g} is not known: too few runs; give more --time"]
    if latency_ns <= constraints.max_latency_ns:
        return []
    limit = constraints.max_latency_ns / 1e6
    return [f"p{percentile:g} {latency_ns / 1e6:.3f} ms, {limit:g} ms is allowed"]


def tied(a: Ratio, b: Ratio) -> bool:
    """Whether two speed-ups cannot be told apart: either estimate lies in the other's interval."""
    return b.low <= a.value <= b.high or a.low <= b.value <= a.high


def preference(results: Sequence[Result], fallback: Result | None) -> list[Result]:
    """Candidates from best to worst: those faster than the original, then the fallback.

    Args:
        results: candidates that hold the constraints.
        fallback: the simplified float model, which needs no speed-up to be offered.
    """
    ranked: list[Result] = []
    left = [r for r in results if (ratio := speedup(r)) is not None and ratio.faster]
    while left:
        best = max(left, key=_value)
        ties = [r for r in left if tied(_ratio(r), _ratio(best))]
        winner = _of_equally_fast(ties)
        ranked.append(winner)
        left.remove(winner)
    if fallback is not None and fallback in results and fallback not in ranked:
        ranked.append(fallback)
    return ranked


def _of_equally_fast(ties: Sequence[Result]) -> Result:
    """The smallest file; of files within one percent of it the one with the best quality."""
    smallest = min(r.size_bytes for r in ties)
    small = [r for r in ties if r.size_bytes <= 1.01 * smallest]
    return max(small, key=lambda r: (r.selection.value if r.selection else 0.0, _value(r)))


def _ratio(result: Result) -> Ratio:
    ratio = speedup(result)
    assert ratio is not None
    return ratio


def _value(result: Result) -> float:
    return _ratio(result).value


def explain(chosen: Result, ranked: Sequence[Result], fallback: Result | None) -> list[str]:
    """Why this one, in sentences."""
    ratio = speedup(chosen)
    if chosen is fallback and (ratio is None or not ratio.faster):
        return [
            "Nothing beats the float original beyond its interval on this machine, so this is "
            "the simplified float model."
        ]
    lines = [f"{chosen.name} is {ratio} as fast as the original."]
    faster = [r for r in ranked if r is not chosen and r is not fallback and _beats(r, chosen)]
    if faster:
        names = ", ".join(r.name for r in faster)
        lines.append(f"{names} cannot be told from it in time, and are larger or less accurate.")
    return lines


def _beats(a: Result, b: Result) -> bool:
    first, second = speedup(a), speedup(b)
    return first is not None and second is not None and first.value > second.value
