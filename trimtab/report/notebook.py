"""Short report of a search for a notebook: answer, constraints, candidates; no script."""

from __future__ import annotations

from .constraints import CONSTRAINT_HEADER, INTERVALS, constraint_rows, figures, headline
from .markup import joined, table, tag
from .view import Row, View


def summary(view: View) -> str:
    """Draw static HTML without styles of its own, so that the notebook's own apply."""
    header = [
        "candidate",
        "file",
        view.metric,
        "loss",
        "original's p50",
        "p50",
        "speed-up",
        "verdict",
    ]
    rows = [_cells(row, view) for row in (view.original, *view.rows)]
    notes = [tag("p", text) for text in (INTERVALS, *view.marks, *view.why, view.advice) if text]
    caption = "Constraints and the figures of the chosen model"
    parts = [
        tag("p", tag("strong", headline(view))),
        table(CONSTRAINT_HEADER, constraint_rows(view), caption=caption),
        *notes,
        tag("details", tag("summary", "Candidates"), table(header, rows, caption="Candidates")),
    ]
    return str(tag("div", joined(parts)))


def _cells(row: Row, view: View) -> list[object]:
    name = tag("strong", row.name) if row.chosen else row.name
    size, quality, loss, base, p50, _, speedup = figures(row, view)
    remark = "" if row is view.original else row.note or row.verdict
    return [name, size, quality, loss, base, p50, speedup, remark]
