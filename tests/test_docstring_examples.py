"""Examples in docstrings: doctests run, code blocks compile and use only names that exist."""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from cnn_data import arrays
from graphs import cnn

from trimtab.core.dataset import Dataset
from trimtab.core.model import Model

ROOT = Path(__file__).parent.parent
FOLDERS = ("core", "exporter", "models", "passes", "runtime_bench", "trimtab")
#: Names that an example may use without defining them: the reader has them.
READERS = {"module", "inputs", "model", "data", "calibration", "feeds_norm"}
#: Docstrings that must have an example: a broken one would else count as prose.
FRONT_DOORS = {
    "trimtab",
    "trimtab.exporter",
    "trimtab.passes",
    "trimtab.passes.rewrites.rule",
    "trimtab.passes.training.torch_graph",
    "trimtab.runtime_bench.gate.pytest_plugin",
}


def sources() -> Iterator[tuple[str, str]]:
    """Dotted name and text of each source file, links left out."""
    links = {ROOT / "trimtab" / folder for folder in FOLDERS}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if links.isdisjoint(path.parents):
                parts = path.relative_to(ROOT).with_suffix("").parts
                parts = parts if parts[0] == "trimtab" else ("trimtab", *parts)
                yield ".".join(parts).removesuffix(".__init__"), path.read_text()


def docstrings(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def code_block(docstring: str) -> tuple[str, ast.Module] | None:
    """The indented Python of a docstring: blocks with a call, an import or a definition."""
    for found in re.finditer(r"\n\n((?:    .*(?:\n|$)|\n(?=    ))+)", docstring):
        code = textwrap.dedent(found[1])
        try:
            tree = ast.parse(code)
        except SyntaxError:  # formulas, tables, YAML, shell
            continue
        if any(isinstance(n, ast.Call | ast.Import | ast.FunctionDef) for n in ast.walk(tree)):
            return code, tree
    return None


def examples() -> dict[str, tuple[str, ast.Module]]:
    return {
        name: block
        for name, text in sources()
        for docstring in docstrings(text)
        if (block := code_block(docstring)) is not None
    }


EXAMPLES = examples()
DOCTESTS = [name for name, text in sources() if ">>>" in text]


@pytest.mark.parametrize("name", DOCTESTS)
def test_doctests_pass(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed


def test_the_front_doors_have_examples() -> None:
    assert set(EXAMPLES) >= FRONT_DOORS


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_compile_and_use_names_that_exist(name: str) -> None:
    code, tree = EXAMPLES[name]
    compile(code, name, "exec")
    nodes = list(ast.walk(tree))
    imports = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    for statement in imports:
        exec(ast.unparse(statement), {})
    defined = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    defined |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
    defined |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    defined |= {a.asname or a.name for n in imports for a in n.names}
    used = {n.id for n in nodes if isinstance(n, ast.Name)} - defined - READERS
    home = importlib.import_module(name)
    assert {n for n in used if not hasattr(home, n) and not hasattr(builtins, n)} == set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "trimtab":
            assert hasattr(importlib.import_module("trimtab"), node.attr)


def test_the_example_of_the_passes_runs() -> None:
    code, _ = EXAMPLES["trimtab.passes"]
    feeds = arrays()
    data = Dataset.of_arrays(feeds, feeds.pop("labels"))
    scope: dict[str, object] = {"model": cnn(), "calibration": data}
    exec(code, scope)
    small = scope["small"]
    assert isinstance(small, Model)
    assert [step.pass_name for step in small.lineage] == ["simplify", "quantize-static"]
