"""Short report of a search for a notebook: answer, constraints, candidates; no script."""

from __future__ import annotations

from trimtab.core.text import bytes_text, known_duration

from .constraints import constraint_lines, drop_text, headline, quality_text
from .frontier import speedup_text
from .markup import joined, table, tag
from .view import Row, View


def summary(view: View) -> str:
    """Draw static HTML without styles of its own, so that the notebook's own apply."""
    lines = [[x.name, x.limit, x.reached, x.verdict] for x in constraint_lines(view)]
    header = ["candidate", "file", view.metric, "loss", "p50", "speed-up", "verdict"]
    rows = [_cells(row, view) for row in (view.original, *view.rows)]
    notes = [tag("p", text) for text in (*view.marks, *view.why)]
    caption = "Constraints and the figures of the chosen model"
    parts = [
        tag("p", tag("strong", headline(view))),
        table(["figure", "required", "reached", "verdict"], lines, caption=caption),
        *notes,
        tag("details", tag("summary", "Candidates"), table(header, rows, caption="Candidates")),
    ]
    return str(tag("div", joined(parts)))


def _cells(row: Row, view: View) -> list[object]:
    name = tag("strong", row.name) if row.chosen else row.name
    size = bytes_text(row.size_bytes) if row.size_bytes else "-"
    time = known_duration(row.p50_ns)
    if row is view.original:
        return [name, size, quality_text(row), "", time, "", ""]
    remark = row.note or row.verdict
    return [name, size, quality_text(row), drop_text(row), time, speedup_text(row), remark]
