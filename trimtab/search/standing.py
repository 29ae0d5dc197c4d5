"""Standing of a claim about a candidate: proved, refuted, or open as far as the evidence goes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trimtab.core.context import Ratio

from .result import TIMES, Constraints, Standing

if TYPE_CHECKING:
    from trimtab.runtime_bench.measure.values import Comparison


def required_speedup(constraints: Constraints, *, is_fallback: bool = False) -> float:
    """Return the speed-up that a candidate has to prove; 0 where it claims none.

    The simplified float model claims no more than what is asked for by name.
    """
    claimed = 0.0 if is_fallback or constraints.goal not in TIMES else 1.0
    return max(claimed, constraints.min_speedup or 0.0)


def is_bounded(comparison: Comparison) -> bool:
    """Return whether there were blocks enough for an interval: without one nothing is decided."""
    known = math.isfinite(comparison.ratio) and math.isfinite(comparison.high)
    return known and comparison.low > 0


def speed_standing(comparison: Comparison, required: float) -> Standing:
    """Return where "at least as fast as required" stands after a measurement.

    A speed-up of 1 must be exceeded, others reached.
    """
    if required <= 0:
        return "proved"
    if not is_bounded(comparison):
        return "open"
    reached = Ratio(comparison.ratio, comparison.low, comparison.high)
    if reached.faster if required <= 1 else reached.low >= required:
        return "proved"
    same = required <= 1 and comparison.verdict in {"same", "worse"}
    return "refuted" if same or reached.high < required else "open"
