"""The Pareto frontier: candidates that none beats in both quality and what is made small."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .result import Goal, Result


def cost(result: Result, goal: Goal) -> float:
    """What of a candidate is to be small; infinite where it is not known.

    A latency is told as a share of the original's, which was measured beside it.
    """
    if goal == "size":
        return float(result.size_bytes) if result.model is not None else math.inf
    if goal == "macs":
        return math.inf if result.macs is None else float(result.macs)
    if goal == "bytes":
        return math.inf if result.moved_bytes is None else float(result.moved_bytes)
    known = result.comparison.ratio if result.comparison is not None else result.predicted
    return 1 / known if known else math.inf


def frontier(results: Sequence[Result], goal: Goal) -> tuple[Result, ...]:
    """The candidates that none beats, the smallest cost first; of equal ones the first stands."""
    known = [
        r
        for r in results
        if r.failure is None and r.selection is not None and math.isfinite(cost(r, goal))
    ]
    best: list[Result] = []
    quality = -math.inf
    for result in sorted(known, key=lambda r: (cost(r, goal), -_value(r))):
        if _value(result) > quality:
            best.append(result)
            quality = _value(result)
    return tuple(best)


def _value(result: Result) -> float:
    return result.selection.value if result.selection else -math.inf
