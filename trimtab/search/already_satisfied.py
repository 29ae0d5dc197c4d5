"""Report of whether the original satisfies the constraints already, as soon as that is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .reporting.log import Log
from .result import Constraints, Result

#: Measures the peak memory of the original in bytes; returns None where that failed.
PeakBytes = Callable[[], float | None]


def report_if_satisfied(
    log: Log, constraints: Constraints, original: Result, results: Sequence[Result], peak: PeakBytes
) -> None:
    """Report it once; nothing where only quality is constrained, or where it is not known yet."""
    reported = any(d["stage"] == "original" and "holds" in d["evidence"] for d in log.entries)
    known = None if reported else satisfies(constraints, original, results, peak)
    if known is None:
        return
    message = "The original does not satisfy the constraints."
    if known:
        message = "The original satisfies the constraints already; looking for a better model."
    log.note("original", message, results, holds=known)


def satisfies(
    constraints: Constraints, original: Result, results: Sequence[Result], peak: PeakBytes
) -> bool | None:
    """Return whether the original satisfies the constraints; None where that is not known yet."""
    found: list[bool | None] = []
    if constraints.max_size is not None:
        found.append(original.size_bytes <= constraints.max_size)
    if constraints.min_speedup is not None:
        found.append(constraints.min_speedup <= 1)
    if constraints.max_latency_ns is not None:
        latency_ns = _latency_ns(results, constraints.percentile)
        found.append(None if latency_ns is None else latency_ns <= constraints.max_latency_ns)
    if constraints.max_rss is not None and False not in found:
        peak_bytes = peak()
        found.append(None if peak_bytes is None else peak_bytes <= constraints.max_rss)
    if not found or False in found:
        return False if found else None
    return None if None in found else True


def _latency_ns(results: Sequence[Result], percentile: float) -> float | None:
    """Return the latency of the original, which is measured beside each candidate."""
    bases = [r.comparison.base for r in results if r.comparison is not None]
    known = (base.percentile_ns(percentile / 100) for base in bases)
    return next((ns for ns in known if ns is not None), None)
