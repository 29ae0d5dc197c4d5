"""Fidelity, which needs no labels, beside an independent judge of the same files' own tasks.

    python benchmarks/real/judging.py --out FOLDER [--only FILE,...] [--table]

Takes the candidates that benchmarks/real/files.py left in FOLDER (simplified, float16, int8 of
trimtab and of onnxruntime, pruned), evaluates each by `trimtab eval --reference FLOAT`, and puts
the figure beside what `measure/real.py` of the shared data says is kept. Both agree where they call
the same candidates ruined (below 0.9) and fine (above 0.97). Of files of an old opset
onnxruntime's quantizer writes what onnxruntime does not load; these are raised to opset 13 first.
--table writes docs/real-judging.md and .json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common.data import REAL, ROOT, real
from files import peer_static
from sources import FILES, STREAMS, data_of, kept, run

#: What files.py calls the file of onnxruntime's quantizer.
PEER = "quantize_static.peer"
#: Candidates by name, and what files.py calls their file.
CANDIDATES = {
    "float": "",
    "simplified": "simplify",
    "float16": "half",
    "int8": "quantize",
    "int8 of onnxruntime": PEER,
    "dynamic int8": "quantize-dynamic",
    "pruned 30%": "prune-channels",
    "zeros 70%": "prune-sparsity",
}
#: Below the first a candidate is ruined, above the second it is fine, else between.
RUINED, FINE = 0.9, 0.97
#: Steps of a stream that are evaluated.
STEPS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of files.py")
    parser.add_argument("--only", default=",".join(FILES))
    parser.add_argument("--table", action="store_true", help="write docs/real-judging.md")
    args = parser.parse_args()
    rows = []
    for file in args.only.split(","):
        for name, made in CANDIDATES.items():
            path = args.out / f"{file}.{made}.onnx" if made else REAL / f"{file}.onnx"
            path = loading_peer(file, path, args.out) if made == PEER else path
            found = kept_row(file, name, path, args.out) if path.exists() else None
            if found is not None:
                mine = found["fidelity"]
                same = isinstance(mine, float) and verdict(mine) == verdict(found["kept"])
                rows.append(found | {"agree": same})
                found = rows[-1]
                print(line(found), flush=True)
    agreed = sum(r["agree"] for r in rows)
    print(f"FIGURE judged alike: {agreed} of {len(rows)}")
    if args.table:
        page = ROOT / "docs" / "real-judging.md"
        page.write_text(document(rows))
        page.with_suffix(".json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def loading_peer(file: str, made: Path, out: Path) -> Path:
    """Return what onnxruntime's quantizer makes of a file, of opset 13 where else it is invalid."""
    import onnx
    import onnxruntime as ort
    from onnx.version_converter import convert_version

    if made.exists():
        try:
            ort.InferenceSession(made)
        except Exception:  # noqa: BLE001 - whatever it is, it cannot be judged
            print(f"{made.name} does not load: again of opset 13")
        else:
            return made
    path, raised = out / f"{file}.opset13.peer.onnx", out / f"{file}.opset13.onnx"
    if not path.exists():
        try:
            onnx.save(convert_version(onnx.load(REAL / f"{file}.onnx"), 13), raised)
            peer_static(raised, file, out, path)
        except Exception as error:  # noqa: BLE001 - of another tool
            print(f"{file}: onnxruntime's quantizer fails: {error}"[:200])
    return path


def kept_row(file: str, name: str, candidate: Path, out: Path) -> dict[str, Any] | None:
    """Return `row`, which is written to a file of its own: a run that was killed goes on."""
    path = out / f"{file}.{name.replace(' ', '-')}.judged.json"
    if path.exists():
        found: dict[str, Any] | None = json.loads(path.read_text())
        return found
    made = row(file, name, candidate, out)
    path.write_text(json.dumps(made) + "\n")
    return made


def row(file: str, name: str, candidate: Path, out: Path) -> dict[str, Any] | None:
    """Return both figures of a candidate; None where onnxruntime does not load it."""
    mine, seen, kind = fidelity(file, candidate, out), kept(file, candidate), ""
    if seen is None:
        return None
    if isinstance(mine, dict):
        worst = min(mine["outputs"], key=lambda output: output["value"])
        mine, kind = mine["value"], worst["kind"]
    return {"file": file, "candidate": name, "fidelity": mine, "kept": seen, "kind": kind}


def verdict(kept_share: float) -> str:
    """Return what a figure says of a candidate."""
    return "ruined" if kept_share < RUINED else "fine" if kept_share > FINE else "between"


def fidelity(file: str, candidate: Path, out: Path) -> Any:
    """Return the quality that `trimtab eval` writes, or its message."""
    report = out / "judging.json"
    report.unlink(missing_ok=True)
    data = stream_rows(file, out) if file in STREAMS else data_of(file, out)["eval"]
    options = ["--reference", REAL / f"{file}.onnx", "--data", data, "--metric", "fidelity"]
    command = [sys.executable, "-m", "trimtab", "eval", candidate, *options, "--json", report]
    code, text, errors = run(command, 900)
    return (
        json.loads(report.read_text())["quality"] if code == 0 else (text + errors).strip()[-300:]
    )


def stream_rows(file: str, out: Path) -> Path:
    """Write the steps of a stream without its states, which `eval` feeds back."""
    cut, _, extra = real().MAKERS[file]()
    steps = cut[len(cut) // 2 :][:STEPS]
    path = out / f"{file}.steps.npz"
    if not path.exists():
        arrays = {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}
        np.savez(path, **arrays, **extra)
    return path


def document(rows: list[dict[str, Any]]) -> str:
    """Return the page of the docs."""
    agreed = sum(r["agree"] for r in rows)
    lines = [
        "# Fidelity beside an independent judge",
        "",
        "`python benchmarks/real/judging.py --table` wrote this page. Each file of",
        "[real-files.md](real-files.md) and what tools made of it, judged twice: by",
        "`trimtab eval CANDIDATE --reference FLOAT --metric fidelity`, which knows nothing of the",
        "task, and by a judge written for that file's task (F1 of the detections, lines read",
        "alike, equal classes, notes, masks, 1 minus the error of a signal; streams with their own",
        "states fed back). A cell is fidelity / judge. The candidates come from several states of",
        "the code: what is compared here are the judges.",
        "",
        f"Both call the same ones ruined (below {RUINED}) and fine (above {FINE}) in {agreed} of",
        f"{len(rows)} cells. A cell without figures was not made, or is of a tool that fails on",
        "the file. The judge of streams sees 900 to 2,000 steps,",
        f"fidelity {STEPS} of them. Spaces of a line of text count in neither.",
        "",
        "| file | judged as | " + " | ".join(CANDIDATES) + " |",
        "|---" * (len(CANDIDATES) + 2) + "|",
    ]
    for file in FILES:
        found = {r["candidate"]: r for r in rows if r["file"] == file}
        kind = next((r["kind"] for r in found.values() if r["kind"]), "")
        cells = [cell(found.get(name)) for name in CANDIDATES]
        lines.append(f"| {file} | {kind} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def cell(found: dict[str, Any] | None) -> str:
    """Return both figures as text."""
    if found is None:
        return "-"
    mine = found["fidelity"]
    shown = f"{mine:.3f}" if isinstance(mine, float) else "refused"
    return f"{shown} / {found['kept']:.3f}{'' if found['agree'] else ' differs'}"


def line(found: dict[str, Any]) -> str:
    """Return a row as text."""
    mine = found["fidelity"]
    shown = f"{mine:.4f}" if isinstance(mine, float) else f"refused: {mine}"
    seen = "-" if found["kept"] is None else f"{found['kept']:.4f}"
    mark = "" if found["agree"] else "  DIFFERS"
    return f"{found['file']:15} {found['candidate']:20} {shown} {seen} {found['kind']}{mark}"


if __name__ == "__main__":
    main()
