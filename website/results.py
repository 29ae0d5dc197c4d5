"""Pages of results, made from the figures beside the documents."""

from __future__ import annotations

import json
from typing import Any

from documents import ROOT, table

from trimtab.core.text import bytes_text

Json = dict[str, Any]
#: What the third-party files do, in the order of the table.
TASKS = {
    "yolox_nano": "detection",
    "ppocr_det": "finding text",
    "ppocr_rec": "reading text",
    "ppocr_cls": "which way text is turned",
    "magika": "file types",
    "basic_pitch": "notes of music",
    "silero_vad": "speech, a stream",
    "dtln_1": "denoising, a stream",
    "prisma": "masks",
    "melspectrogram": "spectra",
}


def pages() -> dict[str, str]:
    """Return the text of every page of results, by its path on the site."""
    return {"results.md": _overview()}


def quantized() -> Json:
    """Return the figures of int8 of third-party files, of every tool."""
    found: Json = json.loads((ROOT / "docs" / "real-quantize.json").read_text(encoding="utf-8"))
    return found


def quantize_table() -> str:
    """Return what `quantize` makes of the third-party files, beside the best other tool of each."""
    cells = quantized()["cells"]
    rows = []
    for file, task in TASKS.items():
        of_file = [cell for cell in cells if cell["file"] == file and cell.get("kept") is not None]
        ours = next(cell for cell in of_file if cell["tool"] == "trimtab")
        best = max((cell for cell in of_file if cell is not ours), key=_rank)
        ratio, low, high = ours["speed"]
        rows.append(
            (
                f"{file} ({task})",
                f"{ours['kept']:.3f}",
                _size(ours["bytes"], ours["original_bytes"]),
                f"{ratio:.2f}x [{low:.2f}, {high:.2f}]",
                _peer(best),
            )
        )
    head = ("file", "kept", "size", "speed-up", "best other tool: kept, size, speed-up")
    return table(head, rows)


def _rank(cell: Json) -> tuple[float, float]:
    """Return by what the best tool is found: it keeps most; of equals it is the fastest."""
    return round(cell["kept"], 3), cell.get("speed", [0.0])[0]


def _size(size: int, original: int) -> str:
    return f"{bytes_text(original)} → {bytes_text(size)}".replace(" ", "\N{NO-BREAK SPACE}")


def _peer(cell: Json) -> str:
    names = {"nncf": "NNCF", "nncf-accuracy": "NNCF accuracy-aware", "olive": "Olive"}
    tool = names.get(cell["tool"], cell["tool"].replace("-", " ").replace("quark", "Quark"))
    share = f"{cell['bytes'] / cell['original_bytes']:.0%}"
    speed = f", {cell['speed'][0]:.2f}x" if "speed" in cell else ""
    return f"{tool}: {cell['kept']:.3f}, {share}{speed}"


def _overview() -> str:
    found = quantized()
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    dates = sorted({cell["date"] for cell in found["cells"]})
    days = " to ".join(sorted({dates[0], dates[-1]}))
    made = f"{machine['cpu']}, {machine['cpus']} CPUs; {versions}; {days}"
    return "\n\n".join(
        [
            "# Results",
            "Every table is made from a file of figures, by the command that stands below it. Run "
            "the command to have the figures of your own machine.",
            "## Third-party files in int8\n\n`trimtab quantize FILE -o OUT --data CALIB`, no "
            "further option. *Kept* is the share of the float model's job on rows that nothing was "
            "chosen on: F1 of detections, lines read alike, decisions alike.",
            quantize_table(),
            _made(made, "python benchmarks/real/quantize.py --table", "real-quantize"),
            "Every tool on every file: [int8 beside other tools](real-quantize.md). All commands "
            "on these files: [third-party files](real-files.md). The judges: "
            "[fidelity beside an independent judge](real-judging.md).",
            "## Architectures",
            _architectures(),
            _made(
                "",
                "python benchmarks/networks/architectures.py --out out/architectures",
                "architectures",
            ),
            "Each of them: [architectures](architectures.md). Networks of the literature beside "
            "their peers: [what the passes reach](reached.md). How often measurements err: "
            "[how it measures](performance.md), [noise and few data](noise.md).",
        ]
    )


def _made(machine: str, command: str, figures: str) -> str:
    on = f"{machine}. " if machine else ""
    return f"*{on}`{command}`, figures in [{figures}.json]({figures}.json).*"


def _architectures() -> str:
    listed = json.loads((ROOT / "docs" / "architectures.json").read_text(encoding="utf-8"))
    families = sorted({entry["name"].partition("/")[0] for entry in listed})
    rows = []
    for family in families:
        members = [e for e in listed if e["name"].startswith(f"{family}/")]
        counts = [sum(bool(e[step]["ok"]) for e in members) for step in _STEPS]
        rows.append((family, str(len(members)), *map(str, counts)))
    head = ("of", "architectures", "exported", "0.98 in int8", "pruned right", "trained on")
    return table(head, rows)


_STEPS = ("export", "int8", "prune", "train")
