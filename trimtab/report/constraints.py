"""Constraints and the figures that the winner reached, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.core.text import bytes_text, duration_text, known_duration

from .frontier import Z95, speedup_text
from .view import Row, View

CONSTRAINT_HEADER = ("figure", "required", "reached", "verdict")


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
    size = _bytes_line("file", row.size_bytes if row else None, limits.get("max_size"))
    speed = _speed(row, limits.get("min_speedup"))
    quality = [_quality(view, row), *_further(view, row)]
    return [*quality, speed, _latency(row, limits), size, *_memory(view, row)]


def constraint_rows(view: View) -> list[list[str]]:
    """Return the cells of a table of the constraints under `CONSTRAINT_HEADER`."""
    return [[line.name, line.limit, line.reached, line.verdict] for line in constraint_lines(view)]


def headline(view: View) -> str:
    """Return the answer in one sentence."""
    row = view.chosen
    if row is None:
        return "No candidate satisfies the constraints."
    parts = [bytes_text(view.original.size_bytes) + " to " + bytes_text(row.size_bytes)]
    if row.speedup is not None:
        parts.insert(0, f"{speedup_text(row).lstrip('=')} as fast as the original")
    if row.drop is not None:
        parts.append(f"{view.metric} changes by {0.0 - row.drop:+.4f}{_spread(row.drop_error)}")
    return f"{row.name}: {', '.join(parts)}."


def figures(row: Row, view: View) -> list[str]:
    """Return file, quality, loss, p50, p95 and speed-up of a candidate as texts."""
    is_original = row is view.original
    return [
        bytes_text(row.size_bytes) if row.size_bytes else "-",
        "-" if row.quality is None else f"{row.quality:.4f}{_spread(row.quality_error)}",
        "" if is_original else _drop(row),
        known_duration(row.p50_ns),
        known_duration(row.p95_ns),
        "" if is_original else speedup_text(row),
    ]


def _drop(row: Row) -> str:
    return "-" if row.drop is None else f"{row.drop:+.4f}{_spread(row.drop_error)}"


def _spread(error: float | None) -> str:
    """Return half of a 95% interval."""
    return "" if error is None else f" ± {Z95 * error:.4f}"


def _quality(view: View, row: Row | None) -> ConstraintLine:
    limit = view.constraints.get("max_drop")
    required = "-" if limit is None else f"at most {float(limit):g}"
    reached = "-" if row is None else f"{_drop(row)} on the {row.part or 'missing'} part"
    known = None if row is None else row.drop
    held = _held(known, limit, 1e-12)
    return ConstraintLine(f"loss of {view.metric}", required, reached, held)


def _further(view: View, row: Row | None) -> list[ConstraintLine]:
    """Return a line for each metric that is limited beside the first."""
    known = {} if row is None else {name: drop for name, _, drop in row.further}
    lines = []
    for name, limit in list(dict(view.constraints.get("max_drops") or {}).items())[1:]:
        drop, part = known.get(name), row.part if row is not None else ""
        reached = "-" if drop is None else f"{drop:+.4f} on the {part} part"
        held = _held(drop, limit, 1e-12)
        lines.append(ConstraintLine(f"loss of {name}", f"at most {float(limit):g}", reached, held))
    return lines


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
    measured = (("p50", row.p50_ns), ("p95", row.p95_ns)) if row else ()
    times = [f"{name} {duration_text(ns)}" for name, ns in measured if ns is not None]
    held = _held(known, limit)
    return ConstraintLine("latency", required, ", ".join(times) or "-", held)


def _memory(view: View, row: Row | None) -> list[ConstraintLine]:
    limit = view.constraints.get("max_rss")
    results = view.document.get("results", ())
    known = next((r.get("rss_bytes") for r in results if row and r["name"] == row.name), None)
    if limit is None and known is None:
        return []
    return [_bytes_line("peak memory", known, limit)]


def _bytes_line(name: str, known: Any, limit: Any) -> ConstraintLine:
    required = "-" if limit is None else f"at most {bytes_text(float(limit))}"
    reached = "-" if known is None else bytes_text(float(known))
    return ConstraintLine(name, required, reached, _held(known, limit))


def _held(known: Any, limit: Any, rounding: float = 0.0) -> bool | None:
    """Return whether a figure is within its limit; None where either is not known."""
    return None if limit is None or known is None else float(known) <= float(limit) + rounding
