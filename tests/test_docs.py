"""Paths, command lines and imports that the documents name exist."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import code_blocks, command_lines, documents
from results import quantize_table

from trimtab.commands.registry import command, parser_of
from trimtab.core.errors import OptionError

ROOT = Path(__file__).parent.parent
#: Folders that the paths of a document may be relative to.
BASES = (
    "",
    "benchmarks",
    "passes",
    "passes/quantization",
    "passes/pruning",
    "runtime_bench",
    "trimtab",
)
DOCUMENTS = documents()
#: Paths that a reader or a command creates.
CREATED = {"passes/simplify/foo.py", "frontier/"}
#: Passes and modules that a reader makes.
MADE = {"tidy"}


def named_paths(text: str) -> Iterator[str]:
    """Names in backticks, outside of code blocks, of source files, documents and folders."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"`([\w./*-]+)`", prose):
        if name.endswith((".py", "/")) or (name.endswith((".md", ".toml")) and "/" in name):
            yield name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_paths_exist(document: Path) -> None:
    names = set(named_paths(document.read_text(encoding="utf-8"))) - CREATED
    missing = [n for n in names if not any(list((ROOT / base).glob(n)) for base in BASES)]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_command_lines_parse(document: Path) -> None:
    wrong = []
    for line, _said in command_lines(document.read_text(encoding="utf-8")):
        _, name, *arguments = shlex.split(line.replace("[", "").replace("]", ""))
        if name in MADE:
            continue
        try:
            parser = parser_of(name, command(name))
            parser.parse_intermixed_args(arguments)
        except (SystemExit, OptionError, argparse.ArgumentError) as error:
            wrong.append(f"{line}: {error}")
    assert wrong == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_resolve(document: Path) -> None:
    for language, code in code_blocks(document.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module not in MADE:
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    assert hasattr(module, alias.name) or importlib.util.find_spec(name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_cells_of_tables_can_be_read(document: Path) -> None:
    rows = [li for li in document.read_text(encoding="utf-8").splitlines() if li.startswith("|")]
    assert [c for row in rows for c in row.split("|") if len(re.sub(r"`[^`]*`", "", c)) > 200] == []


def test_the_readme_has_the_figures_of_third_party_files() -> None:
    assert quantize_table() in (ROOT / "README.md").read_text(encoding="utf-8")
