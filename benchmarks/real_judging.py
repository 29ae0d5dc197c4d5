"""Fidelity, which needs no labels, beside an independent judge of the same files' own tasks.

    python benchmarks/real_judging.py --out FOLDER [--only FILE,...] [--json docs/real_judging.json]

Takes the candidates that benchmarks/real_files.py left in FOLDER (simplified, float16, int8 of
trimtab and of onnxruntime, pruned), evaluates each by `trimtab eval --reference FLOAT`, and puts
the figure beside what `measure/real.py` of the shared data says is kept. Both agree where they call
the same candidates ruined (below 0.9) and fine (above 0.97).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from real_files import FILES, MEASURE, REAL, STREAMS, data_of, kept, run

#: Candidates by name, and what real_files.py calls their file.
CANDIDATES = {
    "float": "",
    "simplified": "simplify",
    "float16": "half",
    "int8": "quantize",
    "int8 of onnxruntime": "quantize_static.peer",
    "dynamic int8": "quantize-dynamic",
    "pruned 30%": "prune-channels",
    "zeros 70%": "prune-sparsity",
}
#: Below the first a candidate is ruined, above the second it is fine.
RUINED, FINE = 0.9, 0.97
#: Steps of a stream that are evaluated.
STEPS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of real_files.py")
    parser.add_argument("--only", default=",".join(FILES))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for file in args.only.split(","):
        for name, made in CANDIDATES.items():
            path = args.out / f"{file}.{made}.onnx" if made else REAL / f"{file}.onnx"
            found = kept_row(file, name, path, args.out) if path.exists() else None
            if found is not None:
                rows.append(found)
                print(line(found), flush=True)
    agreed = sum(r["agree"] for r in rows)
    print(f"FIGURE judged alike: {agreed} of {len(rows)}")
    if args.json:
        args.json.write_text(json.dumps({"agree": agreed, "rows": rows}, indent=1) + "\n")


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
    agree = isinstance(mine, float) and seen is not None and verdicts(mine, seen)
    return {"file": file, "candidate": name, "fidelity": mine, "kept": seen, "kind": kind} | {
        "agree": bool(agree)
    }


def verdicts(mine: float, seen: float) -> bool:
    """Return whether neither calls ruined what the other calls fine, nor misses a ruined one."""
    if seen < RUINED:
        return mine < RUINED
    return mine > RUINED if seen > FINE else True


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
    sys.path.insert(0, str(MEASURE.parent))
    import real  # type: ignore[import-not-found]

    cut, _, extra = real.MAKERS[file]()
    steps = cut[len(cut) // 2 :][:STEPS]
    path = out / f"{file}.steps.npz"
    if not path.exists():
        arrays = {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}
        np.savez(path, **arrays, **extra)
    return path


def line(found: dict[str, Any]) -> str:
    """Return a row as text."""
    mine = found["fidelity"]
    shown = f"{mine:.4f}" if isinstance(mine, float) else f"refused: {mine}"
    seen = "-" if found["kept"] is None else f"{found['kept']:.4f}"
    mark = "" if found["agree"] else "  DIFFERS"
    return f"{found['file']:15} {found['candidate']:20} {shown} {seen} {found['kind']}{mark}"


if __name__ == "__main__":
    main()
