"""Int8 of third-party files: ours with no option beside every other tool, in one run.

    python benchmarks/real/quantize.py [--only FILE/TOOL,...] --peers-python PYTHON [--table]
        [--seconds 60] [--out FOLDER]

Takes the files of files.py. Each cell is one tool on one file: a process with a limit of time
and memory, and a JSON file in --out, so that a killed run goes on where it was. Ours is `trimtab
quantize FILE --data D`; the others are those of peers.py, each with at most 32 of the same rows, as
several keep every tensor of all rows in memory. Then float and all models that keep at least 0.9 of
its job are timed in one interleaved run of a file, one row, one thread: speed-ups over float with
95% intervals. --table writes docs/real-quantize.md and .json from the cells that exist, with what
misses the bars: kept at least 0.97, at most 0.35 of the bytes, not slower than float, and at least
0.97 times as fast as the fastest tool that keeps as much.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common.data import MEASURE, REAL, ROOT
from common.peers import TOOLS
from sources import FILES, Cell, data_of, kept, machine, peer_rows

from trimtab.core.model import Model
from trimtab.runtime_bench.measure.compare import compare

OURS = "trimtab"
#: Rows that the other tools calibrate on.
ROWS = 32
#: Share of the job from which on a model is timed.
TIMED = 0.9
KEPT, BYTES, NOT_SLOWER, BESIDE = 0.97, 0.35, 0.97, 0.97
#: Bytes of the record of how a file was made, which a model of a few kB shows.
RECORD = 750


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*/*", help="patterns of FILE/TOOL, by commas")
    parser.add_argument("--peers-python", default=sys.executable, help="see peers.py")
    parser.add_argument("--limit", type=float, default=300, help="seconds of a cell")
    parser.add_argument("--memory", type=float, default=12, help="GB of address space of a cell")
    parser.add_argument("--seconds", type=float, default=60, help="of timing a file; 0 for none")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "real_quantize")
    parser.add_argument("--table", action="store_true", help="write docs/real-quantize.md")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        for tool in (OURS, *TOOLS):
            if wanted(file, tool, args.only) and not cell_path(args.out, file, tool).exists():
                note(args.out, made(file, tool, args))
        if args.seconds:
            time_file(file, args)
    cells = list(read_cells(args.out))
    missed = [(cell["file"], why) for cell in cells for why in misses(cell, cells)]
    print(f"FIGURE files={len({c['file'] for c in cells})} missed={len(missed)}", *missed, sep="\n")
    if args.table:
        here = machine()
        found = json.dumps({"machine": here, "cells": cells}, indent=1)
        (ROOT / "docs" / "real-quantize.json").write_text(found + "\n")
        (ROOT / "docs" / "real-quantize.md").write_text(document(cells, here))


def wanted(file: str, tool: str, patterns: str) -> bool:
    """Return whether a pattern names a cell."""
    return any(fnmatch.fnmatch(f"{file}/{tool}", one) for one in patterns.split(","))


def cell_path(out: Path, file: str, tool: str) -> Path:
    return out / f"{file}.{tool}.json"


def model_path(out: Path, file: str, tool: str) -> Path:
    return out / f"{file}.{tool}.onnx"


def read_cells(out: Path) -> Iterator[Cell]:
    for file in FILES:
        for tool in (OURS, *TOOLS):
            if (path := cell_path(out, file, tool)).exists():
                yield json.loads(path.read_text())


def note(out: Path, cell: Cell) -> None:
    """Write a cell, and show it."""
    cell_path(out, cell["file"], cell["tool"]).write_text(json.dumps(cell, indent=1) + "\n")
    print({name: value for name, value in cell.items() if name != "message"}, flush=True)


# ------------------------------------------------------------------ a cell
def made(file: str, tool: str, args: argparse.Namespace) -> Cell:
    """Run a tool on a file and judge what it wrote."""
    out = model_path(args.out, file, tool)
    out.unlink(missing_ok=True)
    data = data_of(file, args.out)["calib"]
    line = [sys.executable, "-m", "trimtab", "quantize", REAL / f"{file}.onnx", "--data", data]
    line += ["-o", out, "--force"]
    if tool != OURS:
        script = ROOT / "benchmarks" / "common" / "peers.py"
        line = [args.peers_python, script, tool, REAL / f"{file}.onnx", rows(file, args.out), out]
    start = time.monotonic()
    failure = run(line, tool, args)
    cell: Cell = {
        "file": file,
        "tool": tool,
        "seconds": round(time.monotonic() - start, 1),
        "load": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "original_bytes": (REAL / f"{file}.onnx").stat().st_size,
        "message": failure,
    }
    if out.exists() and not failure:
        cell |= {"bytes": out.stat().st_size, "kept": kept(file, out)}
    return cell


def rows(file: str, out: Path) -> Path:
    """Return the folder of a file's rows for other tools, made if it is not there."""
    folder = out / "feeds" / file
    if not folder.exists():
        folder.mkdir(parents=True)
        for number, feeds in enumerate(peer_rows(REAL / f"{file}.onnx", file, out, ROWS)):
            np.savez(folder / f"{number:03d}.npz", **feeds)
    return folder


def run(line: list[Any], tool: str, args: argparse.Namespace) -> str:
    """Run a command within the limits; return its last line where it failed, else nothing."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if tool == OURS:
        env["PYTHONPATH"] = os.pathsep.join([str(MEASURE.parent), str(ROOT)])
    else:
        env.pop("PYTHONPATH", None)
    limit = int(args.memory * 1e9)
    try:
        done = subprocess.run(
            line,
            capture_output=True,
            text=True,
            timeout=args.limit,
            env=env,
            cwd=args.out,  # some tools leave files where they run
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {args.limit:.0f} s"
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
    return said if done.returncode else ""


# ------------------------------------------------------------------ timing
def time_file(file: str, args: argparse.Namespace) -> None:
    """Time what keeps most of the job against float, in one run, where a cell has no time yet."""
    cells = [c for c in read_cells(args.out) if c["file"] == file and (c.get("kept") or 0) >= TIMED]
    if all("speed" in cell for cell in cells):
        return
    models = [Model.load(model_path(args.out, file, cell["tool"])) for cell in cells]
    feeds = next(iter(peer_rows(REAL / f"{file}.onnx", file, args.out, 1)))
    base = Model.load(REAL / f"{file}.onnx")
    found = compare(base, models, feeds, max_seconds=args.seconds)
    for cell, result in zip(cells, found, strict=True):
        speed = [result.ratio, result.low, result.high]
        note(args.out, cell | {"speed": [round(value, 3) for value in speed]})


# ------------------------------------------------------------------ bars and table
def misses(cell: Cell, cells: list[Cell]) -> list[str]:
    """Return which bars our model of a file misses."""
    if cell["tool"] != OURS:
        return []
    share = cell.get("kept") or 0.0
    found = [f"keeps {share:.3f}"] if share < KEPT else []
    size = (cell.get("bytes", 0) - RECORD) / cell["original_bytes"]
    found += [f"{size:.0%} of the bytes"] if size > BYTES else []
    if "speed" not in cell:
        return found
    ratio, _, high = cell["speed"]
    found += [f"slower than float: {ratio:.2f}"] if high < 1 or ratio < NOT_SLOWER else []
    fastest = rival(cell, cells)
    if fastest and ratio < BESIDE * fastest["speed"][0]:
        found.append(f"{ratio:.2f}, {fastest['tool']} {fastest['speed'][0]:.2f}")
    return found


def rival(cell: Cell, cells: list[Cell]) -> Cell | None:
    """Return the fastest other tool that keeps as much of a file, within half a percent."""
    least = min(cell.get("kept") or 0.0, KEPT) - 0.005
    others = [c for c in cells if c["file"] == cell["file"] and c["tool"] != OURS]
    able = [c for c in others if "speed" in c and c["kept"] >= least]
    return max(able, key=lambda c: c["speed"][0], default=None)


def document(cells: list[Cell], made_on: dict[str, Any]) -> str:
    """Return the page of the docs."""
    found = {(cell["file"], cell["tool"]): cell for cell in cells}
    missed = [f"{c['file']} ({why})" for c in cells for why in misses(c, cells)]
    loads = [cell["load"] for cell in cells]
    head = f"""# Int8 of third-party files, beside other tools

`python benchmarks/real/quantize.py --table` wrote this page. Ours is `trimtab quantize FILE
--data D` with no other option; other tools in the settings that their documentation advises for
x64, per channel, on at most {ROWS} of the same rows. A cell says which share of the float model's
job is kept, the size relative to the float file, and the speed-up over float with its 95% interval:
one row, one thread, all models of a file in one interleaved run. What keeps less than {TIMED} is
not timed.

- Machine: {made_on["cpu"]}, {made_on["cpus"]} CPUs, load {min(loads):.0f} to {max(loads):.0f}.
  {", ".join(f"{name} {v}" for name, v in made_on["versions"].items())}.
- Bars: kept at least {KEPT}, at most {BYTES} of the bytes ({RECORD / 1000} kB less, for the
  record of how a file was made), not slower than float, at least {BESIDE} times as fast as the
  fastest tool that keeps as much. Missed: {"; ".join(missed) or "none"}.
- The figures are in [real-quantize.json](real-quantize.json).

"""
    files = [file for file in FILES if (file, OURS) in found]
    lines = ["| file | trimtab | fastest other that keeps as much |", "|---|---|---|"]
    for file in files:
        best = rival(found[file, OURS], cells)
        other = f"{best['tool']}: {entry(best)}" if best else "none"
        lines.append(f"| {file} | {entry(found[file, OURS])} | {other} |")
    lines += ["", "| tool | " + " | ".join(files) + " |", "|---" * (len(files) + 1) + "|"]
    for tool in TOOLS:
        row = [entry(found.get((file, tool))) for file in files]
        lines.append(f"| {tool} | " + " | ".join(row) + " |")
    return head + "\n".join(lines) + "\n"


def entry(cell: Cell | None) -> str:
    """Return a cell in a few figures."""
    if cell is None:
        return "not run"
    if cell.get("kept") is None:
        return "fails"
    text = f"{cell['kept']:.3f}, {cell['bytes'] / cell['original_bytes']:.0%}"
    if "speed" in cell:
        ratio, low, high = cell["speed"]
        text += f", {ratio:.2f}x [{low:.2f}, {high:.2f}]"
    return text


if __name__ == "__main__":
    main()
