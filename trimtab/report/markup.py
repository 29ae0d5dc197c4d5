"""HTML from values, escaped by construction: only the output of `tag` counts as markup."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from html import escape
from typing import Any

#: Elements without an end tag.
_VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})


class Html(str):
    """Markup that is safe as it is; any other text is escaped where it is inserted."""

    __slots__ = ()


def safe(content: object) -> Html:
    """Return content as markup: anything that is not `Html` is escaped as text."""
    return content if isinstance(content, Html) else Html(escape(str(content)))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Make an element of children, markup or text; those that are None are left out.

    Attributes `class_` and `for_` lose their underscore, others become hyphens; True is a bare
    attribute, None and False are left out.
    """
    parts = [name]
    for key, value in attributes.items():
        plain = key.rstrip("_").replace("_", "-")
        if value is not None and value is not False:
            parts.append(plain if value is True else f'{plain}="{escape(str(value))}"')
    inner = "".join(safe(child) for child in children if child is not None)
    end = "" if name in _VOID else f"{inner}</{name}>"
    return Html(f"<{' '.join(parts)}>{end}")


def joined(parts: Iterable[object]) -> Html:
    """Join several parts."""
    return Html("".join(safe(part) for part in parts))


def section(name: str, title: str, *content: object) -> Html:
    """Make a part of the page under a heading, which is its label too."""
    heading = tag("h2", title, id=f"{name}-title")
    return tag("section", heading, *content, id=name, aria_labelledby=f"{name}-title")


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str,
    numeric: Container[int] = range(1, 99),
) -> Html:
    """Make a table in a box that scrolls by itself where it is wider than the page.

    The first cell of a row is its name; columns of numbers, `numeric`, are aligned to the right.
    """
    head = joined(
        tag("th", text, scope="col", class_="number" if i in numeric else None)
        for i, text in enumerate(header)
    )
    body = joined(tag("tr", _cells(row, numeric)) for row in rows)
    parts = [tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", body)]
    return scrolling(tag("table", *parts), caption)


def scrolling(content: Html, label: str) -> Html:
    """Make a box that keyboards can reach and scroll."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def _cells(row: Sequence[object], numeric: Container[int]) -> Html:
    first, *others = row
    rest = joined(
        tag("td", cell, class_="number" if i in numeric else None)
        for i, cell in enumerate(others, 1)
    )
    return joined([tag("th", first, scope="row"), rest])


def embedded_json(value: object) -> str:
    """Return JSON for a script element: no `<`, no NaN, no line separators."""
    text = json.dumps(finite(value), separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def finite(value: Any) -> Any:
    """Return the same JSON value with null for infinity and NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value
