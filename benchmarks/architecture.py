"""Count boxes, floors, arrows, circles and names of the source: what ARCHITECTURE.md promises.

    python benchmarks/architecture.py [--json FILE] [--brief] [--arrows passes]

A box is a file or a folder of a room; an arrow is an import of one box by another, those inside
functions and under TYPE_CHECKING included; a box stands one floor above the highest that it
imports. An arrow runs back where its rooms import each other; a circle is a set of files of which
each reaches the others.
"""

from __future__ import annotations

import argparse
import ast
import collections
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("core", "exporter", "models", "passes", "runtime_bench", "trimtab")
#: Most boxes and floors of a room, and most files of a folder.
BOXES = {"passes": 15, "runtime_bench": 11}
FLOORS = {"passes": 7}
FILES = 36


@dataclass(frozen=True)
class Source:
    """A module: its file, its dotted name, and what it imports of this project."""

    path: Path
    name: str
    imports: frozenset[str]
    classes: tuple[str, ...]
    lines: int


def dotted(path: Path) -> str:
    """Name under which a file is imported."""
    parts = [p for p in path.with_suffix("").parts if p != "__init__"]
    return ".".join(parts if parts[0] == "trimtab" else ["trimtab", *parts])


def source_files() -> list[Path]:
    """Source files relative to the root; links inside `trimtab/` are left out."""
    found = (p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))
    links = {ROOT / "trimtab" / folder for folder in FOLDERS}
    return sorted(p.relative_to(ROOT) for p in found if not links & set(p.parents))


def imported(tree: ast.AST, package: list[str], known: Mapping[str, Path]) -> Iterator[str]:
    """Modules of this project that a tree imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                if inner in known:
                    yield inner
                elif module in known:
                    yield module


def read_sources() -> list[Source]:
    """Every module of the project."""
    files = source_files()
    known = {dotted(path): path for path in files}
    found = []
    for path in files:
        text = (ROOT / path).read_text(encoding="utf-8")
        tree = ast.parse(text)
        name = dotted(path)
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        classes = tuple(n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef))
        targets = frozenset(imported(tree, package, known)) - {name}
        found.append(Source(path, name, targets, classes, text.count("\n")))
    return found


def box_of(name: str, room: str) -> str | None:
    """The box of a room that a module lies in; None outside, and for the room's own face."""
    prefix = room if room.startswith("trimtab") else f"trimtab.{room}"
    if not name.startswith(prefix + "."):
        return None
    return name.removeprefix(prefix + ".").split(".")[0]


def arrows(sources: Iterable[Source], room: str) -> dict[tuple[str, str], list[str]]:
    """Imports between boxes of a room, each with the files that make them."""
    found: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for source in sources:
        own = box_of(source.name, room)
        for target in sorted(source.imports):
            other = box_of(target, room)
            if own and other and own != other:
                found[own, other].append(f"{source.path} -> {target}")
    return dict(found)


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def floors(boxes: Iterable[str], pairs: Iterable[tuple[str, str]]) -> int:
    """Height of a room without circles: the longest way down."""
    below = collections.defaultdict(set)
    for a, b in pairs:
        below[a].add(b)
    heights: dict[str, int] = {}

    def height(box: str) -> int:
        if box not in heights:
            heights[box] = 0  # a circle ends here
            heights[box] = 1 + max((height(b) for b in below[box]), default=0)
        return heights[box]

    return max((height(box) for box in boxes), default=0)


def figures(sources: list[Source]) -> dict[str, Any]:
    """Everything that is promised, as JSON values."""
    rooms: dict[str, dict[str, int]] = {}
    for room in FOLDERS:
        boxes = {b for s in sources if (b := box_of(s.name, room)) and b not in FOLDERS[:-1]}
        pairs = [p for p in arrows(sources, room) if set(p) <= boxes]
        tied: dict[str, list[str]] = collections.defaultdict(list)
        for a, b in pairs:
            tied[a].append(b)
        rooms[room] = {
            "boxes": len(boxes),
            "floors": floors(boxes, pairs),
            "arrows": len(pairs),
            "back": sum(len(group) for group in circles(tied)),
        }
    owners = collections.defaultdict(list)
    for source in sources:
        for name in source.classes:
            owners[name].append(str(source.path))
    folders = collections.Counter(source.path.parent for source in sources)
    return {
        "lines": sum(source.lines for source in sources),
        "files": len(sources),
        "rooms": rooms,
        "circles": circles({s.name: sorted(s.imports) for s in sources}),
        "classes_of_one_name": {n: w for n, w in sorted(owners.items()) if len(w) > 1},
        "most_files_of_a_folder": max(folders.values()),
    }


def broken_promises(found: dict[str, Any]) -> list[str]:
    """A line for each promise that does not hold."""
    rooms = found["rooms"]
    return [
        *(f"{r} has {rooms[r]['boxes']} boxes" for r, n in BOXES.items() if rooms[r]["boxes"] > n),
        *(
            f"{r} has {rooms[r]['floors']} floors"
            for r, n in FLOORS.items()
            if rooms[r]["floors"] > n
        ),
        *(f"{r}: {row['back']} boxes import each other" for r, row in rooms.items() if row["back"]),
        *("a circle of imports: " + ", ".join(group) for group in found["circles"]),
        *(
            f"class {name} is defined in {' and '.join(where)}"
            for name, where in found["classes_of_one_name"].items()
        ),
        *([f"a folder has {n} files"] if (n := found["most_files_of_a_folder"]) > FILES else []),
    ]


def commit() -> str:
    """The commit that is counted."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> int:
    """Print the figures; exit code 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--arrows", metavar="ROOM", help="list a room's arrows and their files")
    parser.add_argument("--brief", action="store_true", help="what is broken, and the figures")
    args = parser.parse_args()
    sources = read_sources()
    if args.arrows:
        for (a, b), files in sorted(arrows(sources, args.arrows).items()):
            print(f"{a} -> {b}: {'; '.join(files)}")
        return 0
    found = figures(sources)
    if args.json:
        args.json.write_text(json.dumps({"commit": commit(), **found}, indent=1) + "\n")
    if not args.brief:
        print(json.dumps(found, indent=1))
    broken = broken_promises(found)
    print("\n".join(broken))
    for room, row in found["rooms"].items():
        print(f"FIGURE {room}_boxes={row['boxes']} {room}_floors={row['floors']}")
    print(f"FIGURE circles={len(found['circles'])} lines={found['lines']}")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
