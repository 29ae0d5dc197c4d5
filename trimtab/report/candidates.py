"""The table of candidates: complete by itself, sorted and filtered by the page's script."""

from __future__ import annotations

from .constraints import figures
from .markup import Html, joined, scrolling, tag
from .view import Row, View

#: Title and whether the column holds numbers.
_COLUMNS = (
    ("candidate", False),
    ("file", True),
    ("quality", True),
    ("loss", True),
    ("original's p50", True),
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
    body = joined(_line(row, view) for row in (view.original, *view.rows))
    caption = f"Candidates, quality in {view.metric}"
    made = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", head)),
        tag("tbody", body),
        id="candidate-table",
    )
    return scrolling(made, caption)


def _line(row: Row, view: View) -> Html:
    is_original = row is view.original
    verdict = Html("") if is_original else _verdict(row)
    shown: list[object] = [_name(row), *figures(row, view), verdict]
    values = [row.name, row.size_bytes or None, row.quality, row.drop]
    values += [row.base_p50_ns, row.p50_ns, row.p95_ns]
    values += [row.speedup, row.verdict]
    cells = []
    for text, value, (title, numeric) in zip(shown, values, _COLUMNS, strict=True):
        name = "th" if title == "candidate" else "td"
        scope = "row" if name == "th" else None
        kind = "number" if numeric else None
        cells.append(
            tag(name, text, scope=scope, class_=kind, data_value="" if value is None else value)
        )
    classes = " ".join(c for c, on in (("chosen", row.chosen), ("original", is_original)) if on)
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


def _verdict(row: Row) -> Html:
    note = tag("small", row.note) if row.note else None
    return joined([row.verdict, *([tag("br"), note] if note else [])])
