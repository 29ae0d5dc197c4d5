"""Documents of the repository as text: their code blocks, their command lines and their links."""

from __future__ import annotations

import html
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Documents at the top of the repository, and the pages of the site that show them.
TOP = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "LICENSE": "LICENSE",
}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)|(?<=(?:srcset|.{3}src)=\")(?!\w+:)([^\"#]+)")


def documents() -> list[Path]:
    """Return all documents of the repository that a user reads."""
    return [
        *(ROOT / name for name in TOP if name.endswith(".md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def notebook_cells(path: Path) -> list[tuple[str, str]]:
    """Return the cells of a notebook: `markdown` or `code`, and the text."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]


def notebook_pages() -> dict[str, str]:
    """Return the page of each notebook among the tutorials, by its path on the site."""
    pages = {}
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        parts = [
            t if kind == "markdown" else f"```python\n{t}\n```" for kind, t in notebook_cells(path)
        ]
        title, *rest = "\n\n".join(parts).split("\n", 1)
        text = f"{title}\n\n[Download it]({path.name}).\n{rest[0]}\n"
        pages[f"tutorials/{path.stem}.md"] = text
    return pages


@dataclass(frozen=True)
class Block:
    """A block of code in a document.

    Attributes:
        language: its language; empty where it is output or a list.
        title: name of the file that it is, where it is one.
        code: its text.
        not_run: why the block cannot be run anywhere; empty of others.
    """

    language: str
    title: str
    code: str
    not_run: str


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of code of a document."""
    pattern = r"(?:^<!-- not run: ([^\n]*) -->\n\n?)?^```([^\n]*)\n(.*?)^```"
    for not_run, info, code in re.findall(pattern, text, re.DOTALL | re.MULTILINE):
        language, _, rest = info.partition(" ")
        title = re.fullmatch(r'title="(.*)"', rest)
        yield Block(language, title[1] if title else "", code, not_run)


def code_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the languages of the code blocks, with their contents."""
    yield from ((block.language, block.code) for block in blocks(text))


def command_lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield lines of `trimtab ...`, continuations joined, each with the description behind it."""
    for language, code in code_blocks(text):
        if language != "python":
            for line in code.replace("\\\n", " ").splitlines():
                found = re.match(r"\s*(?:- )?(trimtab [\w-]+ .*|trimtab [\w-]+$)", line)
                if found:
                    command, *described = re.split(r"\s{2,}(?!-)", found[1].strip(), maxsplit=1)
                    yield re.split(r" >> | \|\| ", command)[0], "".join(described)


def site_links(text: str, source: str, page: str) -> str:
    """Return a document whose links fit the site.

    Args:
        text: the document.
        source: its path in the repository.
        page: the path of the page that shows it.
    """
    code = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[0]))
        found = TOP.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(found, posixpath.dirname(page) or ".")

    code[::2] = [_LINK.sub(moved, part) for part in code[::2]]
    return "".join(code)


def described_above(text: str) -> str:
    """Return a document whose commands have what is said behind them in a comment above.

    A screen has no room for two columns, and a line that is copied is then the command alone.
    """

    def moved(block: re.Match[str]) -> str:
        code, count = _DESCRIBED.subn(r"# \2\n\1", block[2])
        return f"```bash\n{code}```" if count and not block[1] else block[0]

    return re.sub(r"^```([^\n]*)\n(.*?)^```", moved, text, flags=re.DOTALL | re.MULTILINE)


_DESCRIBED = re.compile(r"^((?:trimtab|make|dask) .*?\S)\s{2,}(?!-)(\S.*)$", re.MULTILINE)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """Return text for a cell; a bar in code is one on GitHub and on the site only as HTML."""

    def barred(match: re.Match[str]) -> str:
        inner = html.escape(match[1], quote=False).replace("|", "&#124;")
        return f"<code>{inner}</code>" if "|" in match[1] else match[0]

    return re.sub(r"`([^`]*)`", barred, text).replace("|", "\\|").replace("\n", " ")


def fields_table(lines: Mapping[str, str]) -> str:
    """Return a table of names with what they mean."""
    return table(("field", "meaning"), [(f"`{name}`", text) for name, text in lines.items()])
