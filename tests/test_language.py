"""Docstrings and messages in plain English: the rules that a program can hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("core", "exporter", "models", "passes", "runtime_bench", "trimtab")
LINKS = {ROOT / "trimtab" / folder for folder in FOLDERS}
SOURCES = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not LINKS & set(path.parents)
]
#: A docstring starts with a verb or a noun of the field.
STARTS = re.compile(r"(What|Whether|How|Where|Who|Whose|Which|When|Why|That|Those)\b")
#: "X is not a valid shape" instead of "X is no shape"; "fix" instead of "mend".
WORDS = re.compile(
    r"(?<!here )\b(is|are) no (?!longer\b|more\b|faster\b|slower\b)|\b[Mm]end(s|ed|ing)?\b"
)


def documented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings with their lines."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        if text:
            yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_are_plain_english(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = [f"{n}: {text.splitlines()[0]}" for n, text in documented(tree) if STARTS.match(text)]
    wrong += [
        f"{node.lineno}: {node.value[:80]!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
        if WORDS.search(node.value)
    ]
    assert wrong == []
