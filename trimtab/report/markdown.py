"""The report as Markdown for a pull request: constraints, candidates, and the recipe."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .constraints import CONSTRAINT_HEADER, INTERVALS, constraint_rows, figures, headline
from .sections import OUTPUT_HEADER, output_rows, recipe_text
from .view import Row, View, damage_reported

#: Signs that have a meaning in Markdown or HTML.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()+!|~$&])")
#: Signs by which GitHub finds people and issues, even where they are escaped.
_CALLS = re.compile(r"([@#])")


def markdown(view: View, *, where: str = "result") -> str:
    """Draw the report as Markdown.

    Raises:
        DataError: the document is damaged.
    """
    with damage_reported(where):
        return "\n".join(_lines(view)) + "\n"


def _lines(view: View) -> list[str]:
    lines = [
        f"### {plain(view.model)}",
        "",
        f"**{plain(headline(view))}**",
        "",
        *_table(CONSTRAINT_HEADER, constraint_rows(view)),
        "",
        *(plain(text) for text in (INTERVALS, *view.marks, *view.why, view.advice) if text),
        *_outputs(view),
        "",
        "<details><summary>Candidates</summary>",
        "",
        *_candidates(view),
        "",
        "</details>",
    ]
    recipe = recipe_text(view)
    if recipe:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", recipe)), default=0))
        lines += ["", "<details><summary>Recipe</summary>", "", f"{fence}yaml", recipe.rstrip()]
        lines += [fence, "", "</details>"]
    return [*lines, "", _environment(view)]


def _outputs(view: View) -> list[str]:
    rows = output_rows(view)
    return ["", *_table(OUTPUT_HEADER, rows)] if rows else []


def _candidates(view: View) -> list[str]:
    header = ["candidate", "file", view.metric, "loss", "original's p50", "p50", "p95"]
    header += ["speed-up", "verdict"]
    return _table(header, [_cells(row, view) for row in (view.original, *view.rows)])


def _cells(row: Row, view: View) -> list[str]:
    name = f"{row.name} (chosen)" if row.chosen else row.name
    remark = "" if row is view.original else row.note or row.verdict
    return [name, *figures(row, view), remark]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(plain(cell) for cell in cells) + " |"

    return [line(header), "|" + " --- |" * len(header), *map(line, rows)]


def plain(text: str) -> str:
    """Escape text for Markdown: on one line, signs escaped, nobody mentioned."""
    quiet = _CALLS.sub("\\1\u200b", " ".join(text.split()))  # a space of no width
    return _SPECIAL.sub(r"\\\1", quiet)


def _environment(view: View) -> str:
    env = view.environment
    if not env:
        return "Nothing was measured."
    return plain(f"{env.get('cpu', '?')}, onnxruntime {env.get('onnxruntime', '?')}")
