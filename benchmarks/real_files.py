"""Third-party files through every command: what comes out, and what is left of the model's job.

    python benchmarks/real_files.py [--only FILE/COMMAND,...] [--limit 300] [--again] [--table]

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
import fnmatch
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from finetune_data import folder

from trimtab.core.text import bytes_text

ROOT = Path(__file__).parents[1]
REAL = folder() / "real"
MEASURE = folder().parent / "measure" / "real.py"
FILES = (
    "yolox_nano",
    "ppocr_rec",
    "ppocr_det",
    "ppocr_cls",
    "magika",
    "basic_pitch",
    "silero_vad",
    "dtln_1",
    "keypoint",
    "prisma",
    "melspectrogram",
)
#: Files with states: their rows come from a function instead of an .npz.
STREAMS = ("silero_vad", "dtln_1")
#: Arguments of each command; {model}, {out}, {calib}, {eval}, {int8} and {gate} are filled in.
COMMANDS = {
    "simplify": "simplify {model} -o {out}",
    "quantize": "quantize {model} -o {out} --data {calib}",
    "quantize-dynamic": "quantize-dynamic {model} -o {out}",
    "quantize-weights": "quantize-weights {model} -o {out}",
    "prune-channels": "prune {model} -o {out} --channels 0.3 --data {calib}",
    "prune-sparsity": "prune {model} -o {out} --sparsity 0.7",
    "half": "half {model} -o {out} --data {calib}",
    "tune": "tune {model} -o {out} --time 20s --data {calib}",
    "doctor": "doctor {int8} --baseline {model} --data {calib}",
    "eval": "eval {model} --data {eval} --reference {model} --metric cosine",
    "bench": "bench {model} --data {calib} --max-time 20s",
    "gate": "gate {gate} --max-time 20s",
    "optimize": "optimize {model} -o {out} --data {calib} --time 60s",
}
#: Commands that write a model, and the function of another tool that does the same.
WRITES: Mapping[str, str | None] = {
    "simplify": "onnxsim",
    "quantize": "quantize_static",
    "quantize-dynamic": "quantize_dynamic",
    "quantize-weights": None,
    "prune-channels": None,
    "prune-sparsity": None,
    "half": None,
    "tune": None,
    "optimize": None,
}
#: Commands that promise the same numbers or nearly so; the others lose what they are asked to.
EXACT = {"simplify": 0.999, "half": 0.98, "tune": 0.999}
#: Share by which we may keep less than the other tool before a cell counts as wrong.
MARGIN = 0.005
#: Part of the job below which a command has to say in its first line that it is lost.
RUINED = 0.5
#: Words of that line.
SAYS_SO = ("answers otherwise", "COULD NOT")
#: Growth of a file that is only what we write about ourselves.
GROWTH = 1.01
#: Bytes of the same, on files of a few kB.
RECORD = 1000
#: Exit codes that say neither yes nor no: the machine is too busy, or no candidate satisfies all.
UNDECIDED = {"gate": {3, 4}, "bench": {3}, "optimize": {1}}
#: Rows that the other tool calibrates on: it keeps every activation of all of them in memory.
PEER_ROWS = 16
#: Longest time of the judge and of another tool, in seconds.
JUDGE_SECONDS, PEER_SECONDS = 300, 300
#: What the figure of a cell means, where neither it nor the message says so.
READINGS = {
    ("yolox_nano", "prune-channels"): "A detector does not keep its objects at 70% of the channels "
    "without training: the first line says so and advises to retrain",
    ("yolox_nano", "prune-sparsity"): "As with fewer channels: 30% of the weights are not enough "
    "without training",
    ("prisma", "prune-sparsity"): "Without training, 30% of the weights keep a third of the mask",
    ("melspectrogram", "quantize-dynamic"): "A logarithm follows the only matrix product; in int8, "
    "as onnxruntime's quantizer makes it, half of the signal is lost",
    ("ppocr_rec", "quantize-weights"): "One line in five is read otherwise in 4 bits",
    ("keypoint", "eval"): "Its output is the class index; a cosine tells little of that, and top1 "
    "by the labels (0.966) is the default",
}
Cell = dict[str, Any]


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


def wanted(patterns: str) -> Iterable[tuple[str, str]]:
    """Yield the files and commands that one of the patterns names, command by command."""
    for command in COMMANDS:
        for file in FILES:
            if any(fnmatch.fnmatch(f"{file}/{command}", p) for p in patterns.split(",")):
                yield file, command


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


def data_of(file: str, out: Path) -> dict[str, str]:
    """Return where the calibration and evaluation rows of a file are, made if they are not."""
    if file in STREAMS:
        rows = f"real:{file}_rows"
        return {"calib": rows, "eval": rows}
    made = out / "rows" / file
    if not (made / "eval.npz").exists():
        subprocess.run([sys.executable, MEASURE, "make", file, made], check=True)
    return {"calib": str(made / "calib.npz"), "eval": str(made / "eval.npz")}


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


def run(command: list[Any], limit: float) -> tuple[int, str, str]:
    """Run a command with a time limit; exit code, output and errors, 124 where it took longer."""
    paths = [str(MEASURE.parent), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "NO_COLOR": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=env, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"took longer than {limit:.0f} s"
    return done.returncode, done.stdout, done.stderr


def message(said: str, errors: str, code: int) -> str:
    """Return the line that says what happened: of the error, else the verdict, else the first."""
    lines = [line for line in said.splitlines() if line.strip()]
    told = [line for line in errors.splitlines() if line.strip()]
    refusals = [line for line in told if line.startswith("trimtab: ")]
    line = (refusals or lines or told or [""])[-1] if code else (lines or told or [""])[0]
    return re.sub(r"\S*/([^/\s]+)", r"\1", line)[:400]


def kept(file: str, candidate: Path) -> float | None:
    """Return the share of the float model's job that a candidate still does."""
    _, said, _ = run([sys.executable, MEASURE, "judge", file, candidate], JUDGE_SECONDS)
    found = re.search(r"KEPT \S+ ([0-9.]+)", said)
    return float(found[1]) if found else None


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
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    feeds = iter(peer_rows(source, file, rows))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(feeds, None)

    quantize_static(source, out, Reader(), per_channel=True)


def peer_rows(source: Path, file: str, rows: Path, most: int = PEER_ROWS) -> list[dict[str, Any]]:
    """Return rows by input name, spread over the data."""
    import onnxruntime as ort

    if file in STREAMS:
        spec = importlib.util.spec_from_file_location("real", MEASURE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return list(module.rows_of(file))[:most]
    names = [i.name for i in ort.InferenceSession(source).get_inputs()]
    arrays = np.load(rows / "rows" / file / "calib.npz")
    arrays = {name: arrays[name] for name in names}
    count = len(arrays[names[0]])
    places = np.linspace(0, count - 1, min(most, count)).astype(int)
    return [{n: a[i : i + 1] for n, a in arrays.items()} for i in places]


PEERS: dict[str, Callable[[Path, str, Path, Path], None]] = {
    "onnxsim": peer_onnxsim,
    "quantize_dynamic": peer_dynamic,
    "quantize_static": peer_static,
}


# ------------------------------------------------------------------ the verdict and the table
def reason_wrong(cell: Cell) -> str:
    """Return why a cell is wrong; empty where it is right."""
    code, said = cell["exit"], cell["message"]
    if code == 124 or cell["crash"]:
        return "took too long" if code == 124 else f"crashed: {said}"
    if code in UNDECIDED.get(cell["command"], ()):
        return ""
    if "onnxruntime refuses it" in said:  # it runs all of these files, on their own rows
        return f"refuses what onnxruntime runs: {said}"
    if code:  # a refusal has a second sentence, which says what to do
        return "" if ". " in said else f"refused without a way out: {said}"
    return reason_ruined(cell) if cell["command"] in WRITES else ""


def reason_ruined(cell: Cell) -> str:
    """Return what is wrong with the model that a cell wrote; empty where it is right."""
    command, share, peer = cell["command"], cell.get("kept"), cell.get("peer", {})
    if share is None:
        return "what it wrote does not run on the rows"
    least = max(EXACT.get(command, 0.0), (peer.get("kept") or 0.0) - MARGIN)
    if share < least:
        return f"keeps {share:.3f}, {least:.3f} is expected"
    if share < RUINED and not any(words in cell["message"] for words in SAYS_SO):
        return f"keeps {share:.3f} and does not say so"
    size = cell["bytes"]
    if size > GROWTH * cell["original_bytes"] + RECORD and command not in {"tune", "optimize"}:
        return f"larger than the original: {bytes_text(size)}"
    return ""


def summary(cell: Cell) -> str:
    """Return a cell in one line."""
    done = (
        f"{cell['kept']:.3f}, {bytes_text(cell['bytes'])}" if cell.get("kept") is not None else ""
    )
    wrong = reason_wrong(cell)
    said = done or cell["message"][:160]
    return f"exit {cell['exit']} {cell['seconds']:5.0f} s  {said}" + (
        f"  WRONG: {wrong}" * bool(wrong)
    )


def machine() -> dict[str, Any]:
    """Return what the cells were run with: CPU, versions."""
    from importlib.metadata import version

    from trimtab.runtime_bench.machine.environment import Environment

    here = Environment.here()
    packages = ("onnxruntime", "onnx", "onnxsim", "numpy")
    return {
        "cpu": here.cpu,
        "cpus": here.cpus,
        "versions": {name: version(name) for name in packages},
    }


def document(cells: list[Cell], made_on: Mapping[str, Any]) -> str:
    """Return the page of the docs."""
    found = {(cell["file"], cell["command"]): cell for cell in cells}
    right = sum(not reason_wrong(cell) for cell in cells)
    dates = sorted({cell["date"] for cell in cells if "date" in cell})
    loads = [cell["load"] for cell in cells if "load" in cell]
    versions = ", ".join(f"{name} {version}" for name, version in made_on["versions"].items())
    missing = [f"{f}/{c}" for f, c in wanted("*/*") if (f, c) not in found]
    wrong = [f"{cell['file']}/{cell['command']}" for cell in cells if reason_wrong(cell)]
    lines = [
        "# Third-party files through every command",
        "",
        f"`python benchmarks/real_files.py --table` wrote this page: {right} of {len(cells)} cells",
        "are right. The files are detectors, OCR, audio, speech, faces and classifiers out of",
        "packages and repositories, each with its own data. Where a command writes a model, it",
        "says which share of the float model's job is kept (F1 of detections, lines read alike,",
        "decisions alike, 1 minus the error of a signal) and the size of the file relative to the",
        "original; in brackets, the same of onnxruntime's `quantize_static` and `quantize_dynamic`",
        "or of onnxsim. Other commands say `done`. [1] is the first of the notes below, which has",
        "what the command said. The figures are in [real-files.json](real-files.json).",
        "",
        "A cell is right where the result keeps no less than these do, or the command refuses with",
        "a way out. So these count as right: a model that lost most of its job by what was asked",
        "for, where the first line says so; `optimize` that found nothing within its constraints",
        "in 60 s; `bench` and `gate` that decide nothing on a busy machine.",
        "",
        f"- Machine: {made_on['cpu']}, {made_on['cpus']} CPUs, load {min(loads, default=0):.0f} to "
        f"{max(loads, default=0):.0f}: shared with other work, so that seconds say little and",
        f"  `bench` and `gate` decide nothing. {versions}. {' to '.join(dates)}.",
        "- Cells are kept until they are run again, so they come from several states of the code;",
        "  those of `quantize`, `gate` and `optimize` from the newest.",
        f"- Not right: {', '.join(wrong) or 'none'}.",
        f"- Not run: {', '.join(missing) or 'none'}.",
        "",
    ]
    notes: list[str] = []
    for group in (list(WRITES)[:4], list(WRITES)[4:], [c for c in COMMANDS if c not in WRITES]):
        lines += ["| file | " + " | ".join(group) + " |", "|---" * (len(group) + 1) + "|"]
        for file in FILES:
            row = [entry(found.get((file, command)), notes) for command in group]
            lines.append(f"| {file} | " + " | ".join(row) + " |")
        lines.append("")
    return "\n".join([*lines, *(f"{i + 1}. {note}" for i, note in enumerate(notes)), ""])


def entry(cell: Cell | None, notes: list[str]) -> str:
    """Return a cell of the table; what it has to explain becomes a note."""
    if cell is None:
        return "not run"
    text = "done" if cell["exit"] in {0, 1, 3, 4} else "refused"
    text = "cut off" if cell["exit"] == 124 else text
    if cell.get("kept") is not None:
        text = f"{cell['kept']:.3f}, {cell['bytes'] / cell['original_bytes']:.0%}"
        peer = cell.get("peer", {})
        if peer.get("kept") is not None:
            text += f" ({peer['kept']:.3f}, {peer['bytes'] / cell['original_bytes']:.0%})"
        elif peer:
            text += " (fails)"
    wrong = reason_wrong(cell)
    note = f"WRONG: {wrong}" if wrong else cell["message"] if cell["exit"] else told(cell)
    if reading := READINGS.get((cell["file"], cell["command"])):
        note = f"{note}. {reading}" if note else reading
    if note:
        note = f"{cell['file']}, {cell['command']}: {note}"
        notes.append(note.replace("|", "\\|"))
        text += f" [{len(notes)}]"
    return text


def told(cell: Cell) -> str:
    """Return what the first line says beside the sizes: that nothing was done, and why."""
    return cell["message"].partition(", ")[2] if cell["command"] in WRITES else ""


if __name__ == "__main__":
    main()
