"""The table of candidates: complete by itself, sorted and filtered by the page's script."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.text import bytes_text, known_duration

from .constraints import drop_text, quality_text
from .frontier import speedup_text
from .markup import Html, joined, scrolling, tag
from .view import Row, View

#: Title and whether the column holds numbers.
_COLUMNS = (
    ("candidate", False),
    ("file", True),
    ("quality", True),
    ("loss", True),
    ("p50", True),
    ("p95", True),
    ("speed-up", True),
    ("verdict", False),
)


def candidate_table(view: View) -> Html:
    """Draw the original and every candidate; each cell has the value that it is sorted by."""
    head = joined(
        tag("th", title, scope="col", class_="number" if numeric else None)
        for title, numeric in _COLUMNS
    )
    body = joined(_line(row, "original" if row is view.original else "") for row in _rows(view))
    caption = f"Candidates, quality in {view.metric}"
    made = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", head)),
        tag("tbody", body),
        id="candidate-table",
    )
    return scrolling(made, caption)


def _rows(view: View) -> Sequence[Row]:
    return [view.original, *view.rows]


def _line(row: Row, kind: str) -> Html:
    values: list[tuple[object, object]] = [
        (_name(row), row.name),
        (bytes_text(row.size_bytes) if row.size_bytes else "-", row.size_bytes or None),
        (quality_text(row), row.quality),
        ("" if kind else drop_text(row), row.drop),
        (known_duration(row.p50_ns), row.p50_ns),
        (known_duration(row.p95_ns), row.p95_ns),
        ("" if kind else speedup_text(row), row.speedup),
        (_verdict(row, kind), row.verdict),
    ]
    cells = []
    for (shown, value), (title, numeric) in zip(values, _COLUMNS, strict=True):
        name = "th" if title == "candidate" else "td"
        scope = "row" if name == "th" else None
        kind_of = "number" if numeric else None
        sorted_by = "" if value is None else value
        cells.append(tag(name, shown, scope=scope, class_=kind_of, data_value=sorted_by))
    classes = " ".join(c for c, on in (("chosen", row.chosen), ("original", bool(kind))) if on)
    return tag(
        "tr",
        joined(cells),
        class_=classes or None,
        data_name=row.name,
        data_measured=row.p50_ns is not None,
        data_frontier=row.frontier,
    )


def _name(row: Row) -> Html:
    marks = [
        tag("span", mark, class_=f"mark {mark}")
        for mark, on in (("chosen", row.chosen), ("frontier", row.frontier and not row.chosen))
        if on
    ]
    return joined([row.name, *(joined([" ", m]) for m in marks)])


def _verdict(row: Row, kind: str) -> Html:
    if kind:
        return Html("")
    note = tag("small", row.note) if row.note else None
    return joined([row.verdict, *([tag("br"), note] if note else [])])
