"""Third-party files through every command: what comes out, and what is left of the model's job.

    python benchmarks/real/files.py [--only FILE/COMMAND,...] [--limit 300] [--again] [--table]

Takes eleven files of the shared data (the folder that TRIMTAB_SHARED names, else `shared` beside
the checkout): detectors, OCR, audio, speech, faces, classifiers out of packages and repositories.
Each cell is a process of its own with a time limit, and a JSON file in --out, so that a killed run
goes on where it was; --only takes patterns as `yolox*/quantize*`. The kept share is that of
`measure/real.py` there: F1 of detections, lines read alike, decisions alike, 1 minus the error of a
signal. Beside it stands the same command of onnxruntime (quantize_static, quantize_dynamic) or of
onnxsim. A cell is right where its exit code is 0 and it keeps no less than these do, or where it
refuses with a reason and a way out. --table writes docs/real-files.md from the cells that exist.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common.data import REAL, ROOT
from common.peers import reader
from files_page import COMMANDS, WRITES, document, reason_wrong, summary, wanted
from sources import Cell, data_of, kept, machine, peer_rows, run

#: Longest time of another tool, in seconds.
PEER_SECONDS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*/*", help="patterns of FILE/COMMAND, by commas")
    parser.add_argument("--limit", type=float, default=300, help="seconds of a cell")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "real_files")
    parser.add_argument("--again", action="store_true", help="run cells that are there already")
    parser.add_argument("--table", action="store_true", help="write docs/real-files.md")
    parser.add_argument("--peer", nargs=3, metavar=("TOOL", "FILE", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        tool, file, out = args.peer
        PEERS[tool](REAL / f"{file}.onnx", file, args.out, Path(out))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for file, command in wanted(args.only):
        path = cell_path(args.out, file, command)
        if path.exists() and not args.again:
            continue
        cell = run_cell(file, command, args.out, args.limit)
        path.write_text(json.dumps(cell, indent=1) + "\n")
        print(f"{file:15} {command:17} {summary(cell)}", flush=True)
    cells = read_cells(args.out)
    right = sum(not reason_wrong(cell) for cell in cells)
    print(f"FIGURE real files: {right} of {len(cells)} cells right")
    for cell in cells:
        if why := reason_wrong(cell):
            print(f"  {cell['file']}/{cell['command']}: {why}")
    if args.table:
        found = {"machine": machine(), "cells": cells}
        (ROOT / "docs" / "real-files.md").write_text(document(cells, found["machine"]))
        (ROOT / "docs" / "real-files.json").write_text(json.dumps(found, indent=1) + "\n")


def cell_path(out: Path, file: str, command: str) -> Path:
    return out / f"{file}.{command}.json"


def read_cells(out: Path) -> list[Cell]:
    paths = [cell_path(out, file, command) for file, command in wanted("*/*")]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


# ------------------------------------------------------------------ a cell
def run_cell(file: str, command: str, out: Path, limit: float) -> Cell:
    """Run a command on a file, judge what it wrote, and do the same with the other tool."""
    model, made = REAL / f"{file}.onnx", out / f"{file}.{command}"
    written = made / "model.onnx" if command == "optimize" else made.with_suffix(f".{command}.onnx")
    written.unlink(missing_ok=True)
    places = data_of(file, out) | {
        "model": str(model),
        "out": str(made if command == "optimize" else written),
        "int8": str(int8_model(file, out)),
        "gate": str(budgets(file, out)),
    }
    line = [part.format(**places) for part in COMMANDS[command].split()]
    start, before = time.monotonic(), children_seconds()
    code, said, errors = run([sys.executable, "-m", "trimtab", *line], limit)
    text = said + errors
    cell: Cell = {
        "file": file,
        "command": command,
        "exit": code,
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(children_seconds() - before, 1),
        "load": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "message": message(said, errors, code),
        "original_bytes": model.stat().st_size,
        "crash": "Traceback (most recent call last)" in text or "bug of" in text or code < 0,
    }
    if command in WRITES and written.exists():
        cell |= {"bytes": written.stat().st_size, "kept": kept(file, written)}
    tool = WRITES.get(command)
    return cell | ({"peer": peer_cell(tool, file, out)} if tool else {})


def children_seconds() -> float:
    """Return the CPU time of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def int8_model(file: str, out: Path) -> Path:
    """Return the int8 model of another cell, else the float one."""
    made = out / f"{file}.quantize.onnx"
    return made if made.exists() else REAL / f"{file}.onnx"


def budgets(file: str, out: Path) -> Path:
    """Write budgets that the float model holds against itself."""
    path, model = out / f"{file}.budgets.yaml", REAL / f"{file}.onnx"
    limits = f"{{size: {model.stat().st_size + 1}, drop: 0.001, p95: 10s, rss: 4GB}}"
    lines = [f"model: {model}", f"baseline: {model}", f"data: {data_of(file, out)['eval']}"]
    text = "\n".join([*lines, "metric: cosine", "threads: 1", f"budgets: {limits}", ""])
    path.write_text(text)
    return path


def message(said: str, errors: str, code: int) -> str:
    """Return the line that says what happened: of the error, else the verdict, else the first."""
    lines = [line for line in said.splitlines() if line.strip()]
    told = [line for line in errors.splitlines() if line.strip()]
    refusals = [line for line in told if line.startswith("trimtab: ")]
    line = (refusals or lines or told or [""])[-1] if code else (lines or told or [""])[0]
    return re.sub(r"\S*/([^/\s]+)", r"\1", line)[:400]


def peer_cell(tool: str, file: str, out: Path) -> Cell:
    """Return what the other tool makes of the file; kept once made."""
    path, made = out / f"{file}.{tool}.peer.json", out / f"{file}.{tool}.peer.onnx"
    if path.exists():
        return dict(json.loads(path.read_text()))
    data_of(file, out)
    command = [sys.executable, __file__, "--out", out, "--peer", tool, file, made]
    code, said, errors = run(command, PEER_SECONDS)
    cell: Cell = {"tool": tool, "exit": code}
    if code == 0 and made.exists():
        cell |= {"bytes": made.stat().st_size, "kept": kept(file, made)}
    else:
        cell["message"] = ((said + errors).strip().splitlines() or [""])[-1][:200]
    path.write_text(json.dumps(cell, indent=1) + "\n")
    return cell


# ------------------------------------------------------------------ the other tools
def peer_onnxsim(source: Path, file: str, rows: Path, out: Path) -> None:  # noqa: ARG001
    import onnx
    import onnxsim

    made, _ = onnxsim.simplify(str(source))
    onnx.save(made, out)


def peer_dynamic(source: Path, file: str, rows: Path, out: Path) -> None:  # noqa: ARG001
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source, out)


def peer_static(source: Path, file: str, rows: Path, out: Path) -> None:
    from onnxruntime.quantization import quantize_static

    quantize_static(source, out, reader(peer_rows(source, file, rows)), per_channel=True)


PEERS: dict[str, Callable[[Path, str, Path, Path], None]] = {
    "onnxsim": peer_onnxsim,
    "quantize_dynamic": peer_dynamic,
    "quantize_static": peer_static,
}


if __name__ == "__main__":
    main()
