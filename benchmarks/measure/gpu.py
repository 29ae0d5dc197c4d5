"""resnet50 and MiniLM in float32, float16 and int8, on CUDA and TensorRT, beside the CPU.

    python benchmarks/measure/gpu.py make FOLDER                    (here, with the extra dev)
    python benchmarks/measure/gpu.py measure FOLDER --json FILE     (on a machine with a GPU)
    python benchmarks/measure/gpu.py measure FOLDER --providers cpu (the CPU's columns, anywhere)

`make` writes NAME.onnx, NAME.half.onnx, NAME.int8-cpu.onnx and NAME.int8-gpu.onnx, the last in the
pattern that TensorRT takes. resnet50 has random weights and both calibrate on random rows: times do
not depend on values, and quality is not looked at. `measure` needs onnxruntime-gpu, for TensorRT
its package too, and nothing of `make`. Each network and batch is one run with all files on all
providers, against the float32 file on the CPU; its table is in FILE before the next begins, and
those that are there are not measured again. TensorRT builds its engines before the first run of
each, which the limit --minutes counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from providers import entry

from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.given_feeds import given_feeds
from trimtab.core.ort.inventory import inventory
from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.core.target import usable_cpus
from trimtab.runtime_bench.measure.compare import compare
from trimtab.runtime_bench.measure.subject import OnEngine
from trimtab.runtime_bench.measure.text import comparison_lines
from trimtab.runtime_bench.measure.values import Comparison, save

NETWORKS = ("resnet50", "minilm")
BATCHES = (1, 32)
#: Sizes of the axes that the files leave free, by network and input, after the batch.
SIZES = {
    "resnet50": {"input": (3, 224, 224)},
    "minilm": {"input_ids": (128,), "attention_mask": (128,)},
}
#: Rows that int8 is calibrated on.
CALIBRATION = 16
WORDS = 30_000  # of MiniLM


def make(name: str, folder: Path) -> None:
    """Write the four files of a network, those that are not there yet."""
    import numpy as np
    from common.data import minilm, own

    path, data = folder / f"{name}.onnx", folder / f"{name}.npz"
    if not path.exists():
        (minilm() if name == "minilm" else own(name)).save(path)
    np.savez(data, **rows(name, Model.load(path), CALIBRATION))
    told = ["--data", str(data)]
    made = {
        "half": ["half"],
        "int8-cpu": ["quantize-static", *told],
        "int8-gpu": ["quantize-static", *told, "--target", "tensorrt"],
    }
    for kind, (command, *words) in made.items():
        out = folder / f"{name}.{kind}.onnx"
        if not out.exists():
            line = [sys.executable, "-m", "trimtab", command, str(path), "-o", str(out), *words]
            subprocess.run(line, check=True, stdout=sys.stderr)


def rows(name: str, model: Model, count: int) -> Feeds:
    """Return so many rows of random values; of words each that a sentence of full length has."""
    shapes = {spec.name: (count, *SIZES[name][spec.name]) for spec in model.inputs}
    feeds = dict(given_feeds(model, shapes))
    for text, array in feeds.items():
        if name == "minilm":
            feeds[text] = abs(array) % WORDS if text == "input_ids" else array * 0 + 1
    return feeds


def ready(names: Sequence[str]) -> list[Engine]:
    """Return the engines that start here.

    Raises:
        OptionError: one does not; the message says what it needs.
    """
    states = {state.name: state for state in inventory()}
    for name in names:
        state = states.get(name)
        if state is None or state.state != "ready":
            why = f"{name} is {state.state if state else 'not known'} here"
            hint = "--providers cpu measures the CPU's columns alone"
            raise OptionError(why, hint=f"{state.missing}. {hint}" if state else hint)
    return [Engine.of(name) for name in names]


def table(
    folder: Path, name: str, batch: int, engines: Sequence[Engine], seconds: float
) -> list[Comparison]:
    """Measure all files of a network on all engines, against float32 on the CPU."""
    base = OnEngine(folder / f"{name}.onnx", Engine())
    candidates = []
    for engine in engines:
        int8 = "int8-cpu" if engine == Engine() else "int8-gpu"
        files = [folder / f"{name}{kind}.onnx" for kind in ("", ".half", f".{int8}")]
        candidates += [one for path in files if (one := OnEngine(path, engine)) != base]
    feeds = rows(name, Model.load(base.model), batch)
    config = SessionConfig(threads=usable_cpus())
    return compare(base, candidates, feeds, config=config, max_seconds=seconds)


def measure(args: argparse.Namespace) -> int:
    """Measure the tables that are missing, print and keep each; return how many there are."""
    engines, start = ready(args.providers.split(",")), time.monotonic()
    tables: dict[str, Any] = {}
    if args.json and args.json.exists():
        tables = json.loads(args.json.read_text(encoding="utf-8"))["tables"]
    for name in args.only.split(","):
        for batch in map(int, args.batches.split(",")):
            key = f"{name}, batch {batch}, {args.providers}"
            if key in tables:
                print(f"{key}: is in {args.json}")
                continue
            if time.monotonic() - start > 60 * args.minutes:
                print(f"{key}: no time left; the same command goes on with it")
                continue
            found = table(args.folder, name, batch, engines, args.seconds)
            medians = {c.candidate.model: c.candidate.median_ns for c in found}
            medians[found[0].base.model] = found[0].base.median_ns
            rates = {model: batch / ns * 1e9 for model, ns in medians.items() if ns}
            print("\n".join(["", key, *comparison_lines(found)]), flush=True)
            if not any(c.blocks for c in found):
                continue  # with more --seconds it may be measured another time
            tables[key] = entry(found) | {"batch": batch, "rows_per_second": rates}
            if args.json:
                save(args.json, {"kind": "gpu", "tables": tables})
    return len(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(NETWORKS))
    parser.add_argument("--providers", default="cpu,cuda,tensorrt")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.what == "make":
        args.folder.mkdir(parents=True, exist_ok=True)
        for name in args.only.split(","):
            make(name, args.folder)
        return
    try:
        print(f"FIGURE tables={measure(args)}")
    except OptionError as error:
        sys.exit(f"gpu.py: {error}")


if __name__ == "__main__":
    main()
