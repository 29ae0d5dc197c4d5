"""Time limits of `trimtab bench` as promises: 3 s to 2 minutes, models of 50 us to 2 s a run.

Each command is a fresh process, timed from its start to its end, startup costs included. It keeps
its promise if it ends within 10% or 2 s of --max-time, and has measured at least one block or says
in one line how much time it takes. `--dry-run` is asked the same first; its answer is right if the
command takes at most 1.5 times as long, or as short. An interrupted run continues where it was.

    python benchmarks/gate/bounds.py [--results FILE] [--save docs/bounds.json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common.journal import done, note
from trials import network

from trimtab.core.units import duration

#: Model, --max-time, and whether startup costs are asked for.
COMMANDS = (
    ("50us", 3, True),
    ("50us", 12, True),
    ("50us", 30, False),
    ("1ms", 5, True),
    ("1ms", 20, True),
    ("1ms", 60, True),
    ("50ms", 5, False),
    ("50ms", 12, True),
    ("50ms", 60, True),
    ("2s", 5, True),
    ("2s", 12, True),
    ("2s", 120, True),
)
#: Layers, rows and width of each model; its name is the time of a run on a quiet core.
SHAPES = {"50us": (2, 4, 64), "1ms": (20, 32, 256), "50ms": (40, 256, 512), "2s": (50, 1024, 1024)}
LINE = re.compile(r"the whole takes about ([0-9.]+) (ns|us|ms|s)|one run of each takes")


def run(*arguments: str) -> tuple[float, int, str]:
    """Run one command; return its seconds, exit code and all that it printed."""
    start = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-m", "trimtab", "bench", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return time.monotonic() - start, found.returncode, found.stdout + found.stderr


def trial(path: Path, limit: int, *, cards: bool) -> dict[str, Any]:
    """Ask for a forecast, run the command, and compare."""
    options = [str(path), str(path), "--threads", "1", "--max-time", f"{limit}s"]
    options += [] if cards else ["--no-card"]
    _, _, forecast = run(*options, "--dry-run")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "b.json"
        seconds, code, text = run(*options, "--json", str(out))
        blocks = 0
        if out.exists():
            (entry,) = json.loads(out.read_text())["runs"]
            blocks = entry["comparisons"][0]["blocks"]
    refused = code == 2 and "Give --max-time" in text
    said = LINE.search(forecast)
    predicted = duration(said[1] + said[2]) if said and said[1] else None
    return {
        "limit": limit,
        "cards": cards,
        "seconds": round(seconds, 2),
        "blocks": blocks,
        "refused": refused,
        "predicted": predicted,
        "load": os.getloadavg()[0],
        "kept": seconds <= limit + max(2.0, limit / 10) and (blocks > 0 or refused),
        "forecast_right": (predicted is None) == refused
        if refused or predicted is None
        else 1 / 1.5 <= seconds / predicted <= 1.5,
    }


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--results", type=Path, default=Path("out/bounds.jsonl"))
    options.add_argument("--save", type=Path, help="write a JSON document of all results")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="trimtab-bounds-") as folder:
        for name, limit, cards in COMMANDS[len(done(args.results)) :]:
            path = Path(folder) / f"{name}.onnx"
            if not path.exists():
                network(*SHAPES[name], weights=2).save(path)
            entry = {"model": name, **trial(path, limit, cards=cards)}
            note(args.results, entry)
    found = done(args.results)
    if args.save:
        args.save.write_text(json.dumps({"commands": found}, indent=1) + "\n")
    print(
        f"FIGURE commands={len(found)} kept={sum(e['kept'] for e in found)} "
        f"forecasts_right={sum(e['forecast_right'] for e in found)}"
    )


if __name__ == "__main__":
    main()
