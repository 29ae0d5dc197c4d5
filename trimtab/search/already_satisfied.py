"""Whether the original holds already what is asked: said as soon as it is known."""

from __future__ import annotations

from .memory import with_memory
from .run import Search


def report_if_satisfied(search: Search) -> None:
    """Say it once; nothing where nothing but quality is asked, or where it is not known yet."""
    said = any(d["stage"] == "original" and "holds" in d["evidence"] for d in search.log.entries)
    known = None if said else original_satisfies(search)
    if known is None:
        return
    message = (
        "The original holds what is asked already; looking for better."
        if known
        else "The original does not hold what is asked."
    )
    search.log.note("original", message, search.results, holds=known)


def original_satisfies(search: Search) -> bool | None:
    """Whether the original holds the constraints; None where that is not known yet."""
    asked, original = search.constraints, search.original
    found: list[bool | None] = []
    if asked.max_size is not None:
        found.append(original.size_bytes <= asked.max_size)
    if asked.min_speedup is not None:
        found.append(asked.min_speedup <= 1)
    if asked.max_latency_ns is not None:
        latency_ns = _latency_ns(search)
        found.append(None if latency_ns is None else latency_ns <= asked.max_latency_ns)
    if asked.max_rss is not None and False not in found:
        store, bench = search.builder.store, search.timer.bench
        peak = with_memory(original, search.timer.feeds, search.ctx, store, bench).rss_bytes
        found.append(None if peak is None else peak <= asked.max_rss)
    if not found or False in found:
        return False if found else None
    return None if None in found else True


def _latency_ns(search: Search) -> float | None:
    """Of the original, from the runs beside the candidates."""
    measured = [r.comparison for r in search.results if r.comparison is not None]
    known = [c.base.percentile_ns(search.constraints.percentile / 100) for c in measured]
    return next((ns for ns in known if ns is not None), None)
