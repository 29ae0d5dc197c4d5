"""The page of `files.py`: whether each cell is right, and why not."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from sources import FILES, Cell

from trimtab.core.text import bytes_text

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


def wanted(patterns: str) -> Iterable[tuple[str, str]]:
    """Yield the files and commands that one of the patterns names, command by command."""
    for command in COMMANDS:
        for file in FILES:
            if any(fnmatch.fnmatch(f"{file}/{command}", p) for p in patterns.split(",")):
                yield file, command


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
        f"`python benchmarks/real/files.py --table` wrote this page: {right} of {len(cells)} cells",
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
