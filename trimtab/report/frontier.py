"""Candidates as points: quality lost against latency, with their intervals."""

from __future__ import annotations

from typing import Any

from trimtab.core.metrics.metric import Z95
from trimtab.core.text import bytes_text, duration_text

from .view import Row, View

_LAYERS = ("candidate", "original", "frontier", "chosen")


def frontier_rows(view: View) -> list[dict[str, Any]]:
    """Return a row for each candidate with a speed-up and a quality, and one for the original."""
    base_ms = None if view.original.p50_ns is None else view.original.p50_ns / 1e6
    one = base_ms or 1.0
    unit = "median latency in ms" if base_ms else "time as a share of the original's"
    found = []
    for row in (view.original, *view.rows):
        is_original = row is view.original
        ratio = 1.0 if is_original else row.speedup
        change = 0.0 if is_original else (None if row.drop is None else -row.drop)
        if not ratio or change is None:
            continue
        spread = None if row.drop_error is None else Z95 * row.drop_error
        speed = "" if is_original else speedup_text(row)
        size = bytes_text(row.size_bytes)
        time = duration_text(one / ratio * 1e6) if base_ms else f"{1 / ratio:.3f}"
        found.append(
            {
                "name": row.name,
                "unit": unit,
                "x": one / ratio,
                # The ends of the ratio's interval, as times; an end that is not known has no bar.
                "x_low": one / row.high if row.high else None,
                "x_high": one / row.low if row.low else None,
                "y": change,
                "y_low": None if spread is None else change - spread,
                "y_high": None if spread is None else change + spread,
                "bytes": row.size_bytes,
                "size": size,
                "speedup": speed,
                "frontier": row.frontier,
                "kind": _kind(row, is_original=is_original),
                "text": f"{row.name}: {time}, change {change:+.4f}, {size}",
            }
        )
    # Drawn in this order, so that the answer is on top.
    return sorted(found, key=lambda point: _LAYERS.index(str(point["kind"])))


def _kind(row: Row, *, is_original: bool) -> str:
    if is_original:
        return "original"
    if row.chosen:
        return "chosen"
    return "frontier" if row.frontier else "candidate"


def speedup_text(row: Row) -> str:
    """Return `1.52x [1.48, 1.56]`, after `=` where measured for a twin, `~` if predicted."""
    if row.speedup is None:
        return "-"
    if row.predicted:
        return f"~{row.speedup:.2f}x"
    twin = "=" if row.same_as else ""
    return twin + ratio_text(row.speedup, row.low, row.high)


def ratio_text(value: float, low: float | None, high: float | None) -> str:
    """Return `1.52x [1.48, 1.56]`; `[?, ?]` where there were too few runs for an interval."""
    if not low or high is None:
        return f"{value:.2f}x [?, ?]"
    return f"{value:.2f}x [{low:.2f}, {high:.2f}]"
