"""Entries of a long run, a line of JSON each, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def done(path: Path) -> list[dict[str, Any]]:
    """Return the entries that an earlier run finished."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def note(path: Path, entry: dict[str, Any]) -> None:
    """Append one entry at once, so that an interruption loses none, and show it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    print(entry, flush=True)
