"""The same models on the CPU's provider and on others: float and int8, in one run each.

    python benchmarks/measure/providers.py make FOLDER      (here, with the extra dev)
    python benchmarks/measure/providers.py measure FOLDER [--provider openvino] [--seconds 60]
        [--json FILE]

`make` writes NAME.onnx and NAME.int8.onnx, quantized by `trimtab quantize` with the shared data
that TRIMTAB_SHARED names; `measure` needs the package of the provider and none of the others, so it
runs in an environment of its own. Ratios are over the float model on the CPU; a run on a noisy
machine says so, and its figures are not for quoting. --only takes names, separated by commas.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from trimtab.core.model import Model
from trimtab.core.ort.given_feeds import given_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.runtime_bench.measure.compare import compare
from trimtab.runtime_bench.measure.text import comparison_lines, speedup_text
from trimtab.runtime_bench.measure.values import Comparison, save

NETWORKS = ("resnet20", "resnet56", "mobilenet_v2")
FILES = ("ppocr_cls", "ppocr_rec", "yolox_nano", "keypoint")
MODELS = (*NETWORKS, "minilm", *FILES)
#: Sizes that are measured, where a file leaves them open.
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "minilm": {"input_ids": (1, 128), "attention_mask": (1, 128)},
    "ppocr_cls": {"x": (1, 3, 48, 192)},
    "ppocr_rec": {"x": (1, 3, 48, 320)},
}
#: Images that networks are calibrated on.
IMAGES = 256


def make(name: str, out: Path) -> None:
    """Write the float and the int8 model of a name, unless they are there."""
    path, small = out / f"{name}.onnx", out / f"{name}.int8.onnx"
    if small.exists():
        return
    data = prepared(name, path, out)
    words = ["quantize", str(path), "-o", str(small), *(["--data", str(data)] if data else [])]
    subprocess.run([sys.executable, "-m", "trimtab", *words], check=True, stdout=sys.stderr)


def prepared(name: str, path: Path, out: Path) -> Path | None:
    """Write the float model, and return the file of data to calibrate on, if there are any."""
    import numpy as np
    from common.data import MEASURE, REAL, cifar, folder, minilm

    if name == "minilm":
        minilm().save(path)
        return None
    if name in NETWORKS:
        shutil.copy(folder() / path.name, path)
        np.savez(out / f"{name}.npz", **next(iter(cifar("train", IMAGES).sized(IMAGES))).feeds)
        return out / f"{name}.npz"
    shutil.copy(REAL / path.name, path)
    rows = out / f"{name}-rows"
    subprocess.run([sys.executable, MEASURE, "make", name, rows], check=True, stdout=sys.stderr)
    return rows / "calib.npz"


def entry(found: list[Comparison]) -> dict[str, Any]:
    """Return what a run found as JSON values."""
    return {
        "base": found[0].base.model,
        "machine": found[0].base.environment.to_json(),
        "noisy": [r for c in found for r in c.candidate.noise_check.reasons],
        "speedups": {
            c.candidate.model: {
                "ratio": speedup_text(c),
                "verdict": c.verdict,
                "error": c.error,
                "nodes": dict(c.candidate.placement.nodes) if c.candidate.placement else None,
            }
            for c in found
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--provider", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    document: dict[str, Any] = {}
    for name in args.only.split(","):
        if args.what == "make":
            args.folder.mkdir(parents=True, exist_ok=True)
            make(name, args.folder)
            continue
        source = args.folder / f"{name}.onnx"
        feeds = given_feeds(Model.load(source), SHAPES.get(name, {}))
        found = compare(
            source,
            [args.folder / f"{name}.int8.onnx"],
            feeds,
            config=SessionConfig(threads=1),
            providers=["cpu", *(args.provider or ["openvino"])],
            max_seconds=args.seconds,
        )
        document[name] = entry(found)
        print("\n".join(["", name, *comparison_lines(found)]), flush=True)
        if args.json:
            save(args.json, {"kind": "providers", "models": document})
    print(f"FIGURE models={len(document)}")


if __name__ == "__main__":
    main()
