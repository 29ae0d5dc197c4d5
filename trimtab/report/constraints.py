"""Constraints and the figures that the winner reached, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.core.text import bytes_text, duration_text

from .frontier import Z95, speedup_text
from .view import Row, View


@dataclass(frozen=True)
class ConstraintLine:
    """One constraint with the figure that was reached.

    Attributes:
        name: name of the constrained figure.
        limit: the required value.
        reached: the winner's figure, `-` where there is no winner.
        held: true where it is satisfied; None where nothing was required or nothing is known.
    """

    name: str
    limit: str
    reached: str
    held: bool | None

    @property
    def verdict(self) -> str:
        """Verdict as a word."""
        return {True: "held", False: "broken", None: "-"}[self.held]


def constraint_lines(view: View) -> list[ConstraintLine]:
    """Return a line for each constraint, and for figures without one."""
    row, limits = view.chosen, view.constraints
    return [
        _quality(view, row),
        _speed(row, limits.get("min_speedup")),
        _latency(row, limits),
        _size(view, row),
        *_memory(view, row),
    ]


def headline(view: View) -> str:
    """Return the answer in one sentence."""
    row = view.chosen
    if row is None:
        return "No candidate satisfies the constraints."
    parts = [bytes_text(view.original.size_bytes) + " to " + bytes_text(row.size_bytes)]
    if row.speedup is not None:
        parts.insert(0, f"{speedup_text(row).lstrip('=')} as fast as the original")
    if row.drop is not None:
        parts.append(f"{view.metric} changes by {_change(row)}")
    return f"{row.name}: {', '.join(parts)}."


def _change(row: Row) -> str:
    spread = f" ± {Z95 * row.drop_error:.4f}" if row.drop_error is not None else ""
    return f"{0.0 - (row.drop or 0.0):+.4f}{spread}"


def quality_text(row: Row) -> str:
    """Return a quality with half its 95% interval."""
    if row.quality is None:
        return "-"
    spread = "" if row.quality_error is None else f" ± {Z95 * row.quality_error:.4f}"
    return f"{row.quality:.4f}{spread}"


def drop_text(row: Row) -> str:
    """Return a loss against the original with half its paired 95% interval."""
    if row.drop is None:
        return "-"
    spread = "" if row.drop_error is None else f" ± {Z95 * row.drop_error:.4f}"
    return f"{row.drop:+.4f}{spread}"


def _quality(view: View, row: Row | None) -> ConstraintLine:
    limit = view.constraints.get("max_drop")
    required = "-" if limit is None else f"at most {float(limit):g}"
    reached = "-" if row is None else f"{drop_text(row)} on the {row.part or 'missing'} part"
    known = None if row is None else row.drop
    held = None if limit is None or known is None else known <= float(limit) + 1e-12
    return ConstraintLine(f"loss of {view.metric}", required, reached, held)


def _speed(row: Row | None, limit: Any) -> ConstraintLine:
    required = "-" if limit is None else f"at least {float(limit):g}x"
    reached = "-" if row is None else speedup_text(row).lstrip("=")
    proved = None if row is None else (row.speedup if row.predicted else row.low)
    held = None if limit is None or proved is None else proved >= float(limit)
    return ConstraintLine("speed-up", required, reached, held)


def _latency(row: Row | None, limits: Any) -> ConstraintLine:
    limit, which = limits.get("max_latency_ns"), float(limits.get("percentile", 95.0))
    known = {50.0: row.p50_ns, 95.0: row.p95_ns}.get(which) if row else None
    required = "-" if limit is None else f"p{which:g} at most {duration_text(float(limit))}"
    times = (
        [
            f"{name} {duration_text(ns)}"
            for name, ns in (("p50", row.p50_ns), ("p95", row.p95_ns))
            if ns is not None
        ]
        if row
        else []
    )
    held = None if limit is None or known is None else known <= float(limit)
    return ConstraintLine("latency", required, ", ".join(times) or "-", held)


def _size(view: View, row: Row | None) -> ConstraintLine:
    limit = view.constraints.get("max_size")
    required = "-" if limit is None else f"at most {bytes_text(float(limit))}"
    held = None if limit is None or row is None else row.size_bytes <= float(limit)
    return ConstraintLine("file", required, bytes_text(row.size_bytes) if row else "-", held)


def _memory(view: View, row: Row | None) -> list[ConstraintLine]:
    limit = view.constraints.get("max_rss")
    results = view.document.get("results", ())
    known = next((r.get("rss_bytes") for r in results if row and r["name"] == row.name), None)
    if limit is None and known is None:
        return []
    held = None if limit is None or known is None else float(known) <= float(limit)
    required = "-" if limit is None else f"at most {bytes_text(float(limit))}"
    reached = "-" if known is None else bytes_text(float(known))
    return [ConstraintLine("peak memory", required, reached, held)]
