"""The site of the documents: its navigation is complete, and its pages are made from the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import documents
import pytest
import reference
import results
import yaml

from trimtab.cli import main
from trimtab.commands import registry
from trimtab.core import errors
from trimtab.passes import names

GENERATED = reference.pages() | results.pages() | documents.notebook_pages()


def navigation() -> set[str]:
    text = (documents.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return set(_paths(yaml.safe_load(text)["nav"]))


def _paths(nav: Any) -> Iterator[str]:
    for entry in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(entry, str):
            yield entry
        else:
            yield from _paths(entry)


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    folder = documents.ROOT / "docs"
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*.md")}
    shown = {page for page in documents.TOP.values() if page.endswith(".md")}
    commands = {reference.command_page(name) for name in registry.names()}
    assert navigation() == (written | shown | set(GENERATED)) - commands
    assert commands < set(GENERATED)


@pytest.mark.parametrize("name", registry.names())
def test_the_page_of_a_command_has_all_of_its_options(name: str) -> None:
    page = GENERATED[reference.command_page(name)]
    for action in registry.parser_of(name, registry.command(name))._actions:
        if action.dest != "help" and action.option_strings:
            assert re.search(rf"[`>]{action.option_strings[0]}[ `]", page)


#: What only Python's own notation of types and values has, as `tuple[str, ...] | None`.
PYTHON = re.compile(r"\b(?:tuple|dict|list|Mapping|Sequence)\[|\| None|\b(?:None|True|False|str)\b")


def test_every_list_of_passes_has_the_words_of_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["passes"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    documented = re.findall(r"^\| `\w+` \|.*?\|.*?\|", GENERATED["reference/passes.md"], re.M)
    helps = [registry.parser_of(name, registry.command(name)).format_help() for name in names()]
    assert [text for text in helps if "that of the run" in " ".join(text.split())] == []
    for line in (*shown, *documented, *helps):
        assert not PYTHON.search(line), line
    assert max(map(len, shown)) <= 100
    for told in ("statistics: FILE", "exclude: NAME,NAME", "per_channel: yes|no, default yes"):
        assert f"    {told}" in shown


def test_lists_are_complete() -> None:
    for name in names():
        assert f"## {name}\n" in GENERATED["reference/passes.md"]
    for kind in (errors.ModelError, errors.DataError, errors.OptionError):
        part = GENERATED["reference/errors.md"].partition(f"## {kind.__name__}\n")[2]
        assert part.partition("## ")[0].count("\n| ") > 10


@pytest.mark.parametrize(
    "command", ["bench", "eval", "export", "gate", "optimize", "prune", "quantize"]
)
def test_pages_of_commands_begin_with_examples_of_the_documents(command: str) -> None:
    assert "## Examples\n\n```bash\n" in GENERATED[reference.command_page(command)]


def test_links_of_documents_lead_to_pages() -> None:
    text = "[a](docs/ci.md) [b](ARCHITECTURE.md#rooms) [c](https://x.y/docs/z.md)\n```\n[d](docs/e.md)\n```\n"
    found = documents.site_links(text, "README.md", "index.md")
    assert found == text.replace("docs/ci.md", "ci.md").replace("ARCHITECTURE", "architecture")
    deeper = documents.site_links(
        "[a](../../README.md) [b](../ci.md)", "docs/tutorials/x.md", "tutorials/x.md"
    )
    assert deeper == "[a](../index.md) [b](../ci.md)"
    assert re.search(r"\d\.\d\dx \[", results.quantize_table())


def test_what_is_said_behind_commands_stands_above_them_on_the_site() -> None:
    text = "```\ntrimtab a b -o c     makes c\ntrimtab d\n```\n"
    shown = "```bash\n# makes c\ntrimtab a b -o c\ntrimtab d\n```\n"
    assert documents.described_above(text) == shown
    output = "```\nsmall.onnx   1.2 MB\n```\n"
    assert documents.described_above(output) == output
    for path in documents.documents():
        page = documents.described_above(path.read_text(encoding="utf-8"))
        assert [said for _, said in documents.command_lines(page) if said] == [], path
