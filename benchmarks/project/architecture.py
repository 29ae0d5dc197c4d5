"""Count boxes, floors, arrows, circles and names of the source: what ARCHITECTURE.md promises.

    python benchmarks/project/architecture.py [--json FILE] [--brief] [--arrows passes]

A box is a file or a folder of a room; an arrow is an import of one box by another, those inside
functions and under TYPE_CHECKING included; a box stands one floor above the highest that it
imports. In a circle each imports the next: the contracts of `lint-imports` find all of them.
"""

from __future__ import annotations

import argparse
import ast
import collections
import graphlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grimp

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("core", "exporter", "models", "passes", "runtime_bench", "trimtab")
#: Most boxes and floors of a room, and most files of a folder.
BOXES = {"passes": 15, "runtime_bench": 11}
FLOORS = {"passes": 7}
FILES = 34

#: What each module or box imports.
Imports = Mapping[str, set[str]]


def source_files() -> list[Path]:
    """Source files relative to the root; links inside `trimtab/` are left out."""
    found = (p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))
    links = {ROOT / "trimtab" / folder for folder in FOLDERS}
    return sorted(p.relative_to(ROOT) for p in found if not links & set(p.parents))


def read_imports() -> dict[str, set[str]]:
    """Return what each module imports of this project, wherever the statement stands."""
    graph = grimp.build_graph("trimtab", cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def box_of(name: str, room: str) -> str | None:
    """The box of a room that a module lies in; None outside, and for the room's own face."""
    prefix = "trimtab." if room == "trimtab" else f"trimtab.{room}."
    box = name.removeprefix(prefix).partition(".")[0]
    return box if name.startswith(prefix) and (room, box) not in _ROOMS else None


_ROOMS = {("trimtab", folder) for folder in FOLDERS}


def arrows(imports: Imports, room: str) -> dict[tuple[str, str], list[str]]:
    """Imports between boxes of a room, each with the modules that make them."""
    found: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for source in sorted(imports):
        for target in sorted(imports[source]):
            own, other = box_of(source, room), box_of(target, room)
            if own and other and own != other:
                found[own, other].append(f"{source} -> {target}")
    return dict(found)


def circle(graph: Imports) -> list[str]:
    """A circle of imports, the first again at its end; empty where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def floors(graph: Imports) -> int:
    """Height of a room: the longest way down; 0 where it has a circle."""
    heights = {"": 0}
    for box in [] if circle(graph) else graphlib.TopologicalSorter(graph).static_order():
        heights[box] = 1 + max((heights[other] for other in graph.get(box, ())), default=0)
    return max(heights.values())


def figures() -> dict[str, Any]:
    """Everything that is promised, as JSON values."""
    imports = read_imports()
    rooms: dict[str, dict[str, int]] = {}
    for room in FOLDERS:
        pairs = arrows(imports, room)
        graph = {box: set[str]() for name in imports if (box := box_of(name, room))}
        for above, below in pairs:
            graph[above].add(below)
        rooms[room] = {
            "boxes": len(graph),
            "floors": floors(graph),
            "arrows": len(pairs),
            "back": len(circle(graph)),
        }
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in source_files()}
    owners = collections.defaultdict(list)
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                owners[node.name].append(str(path))
    return {
        "lines": sum(text.count("\n") for text in texts.values()),
        "files": len(texts),
        "rooms": rooms,
        "circle": circle(imports),
        "classes_of_one_name": {n: w for n, w in sorted(owners.items()) if len(w) > 1},
        "most_files_of_a_folder": max(collections.Counter(p.parent for p in texts).values()),
    }


def broken_promises(found: dict[str, Any]) -> list[str]:
    """A line for each promise that does not hold."""
    rooms = found["rooms"]
    most = [(r, "boxes", n) for r, n in BOXES.items()] + [
        (r, "floors", n) for r, n in FLOORS.items()
    ]
    return [
        *(f"{r} has {rooms[r][what]} {what}" for r, what, n in most if rooms[r][what] > n),
        *(f"{r}: boxes import each other" for r, row in rooms.items() if row["back"]),
        *(["a circle of imports: " + ", ".join(found["circle"])] if found["circle"] else []),
        *(
            f"class {name} is defined in {' and '.join(where)}"
            for name, where in found["classes_of_one_name"].items()
        ),
        *([f"a folder has {n} files"] if (n := found["most_files_of_a_folder"]) > FILES else []),
    ]


def commit() -> str:
    """The commit that is counted."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.check_output(command, cwd=ROOT, text=True).strip()


def main() -> int:
    """Print the figures; exit code 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--arrows", metavar="ROOM", help="list a room's arrows and their modules")
    parser.add_argument("--brief", action="store_true", help="what is broken, and the figures")
    args = parser.parse_args()
    if args.arrows:
        for (a, b), modules in sorted(arrows(read_imports(), args.arrows).items()):
            print(f"{a} -> {b}: {'; '.join(modules)}")
        return 0
    found = figures()
    if args.json:
        args.json.write_text(json.dumps({"commit": commit(), **found}, indent=1) + "\n")
    if not args.brief:
        print(json.dumps(found, indent=1))
    broken = broken_promises(found)
    print("\n".join(broken))
    for room, row in found["rooms"].items():
        print(f"FIGURE {room}_boxes={row['boxes']} {room}_floors={row['floors']}")
    print(f"FIGURE circles={bool(found['circle']):d} lines={found['lines']}")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
