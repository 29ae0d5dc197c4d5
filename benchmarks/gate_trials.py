"""Shared parts of the gate's benchmarks: models, one gate, results that survive interruptions."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from trimtab.core.model import Model
from trimtab.core.ort.int8_share import int8_share
from trimtab.runtime_bench.bench.budgets import Budget, Gate
from trimtab.runtime_bench.gate.collect import Collector
from trimtab.runtime_bench.gate.rules import ALPHA, judge

#: Layers of 32 x 256 x 256 multiply-accumulates: about 1 ms on one core.
LAYERS, ROWS, WIDTH = 20, 32, 256
#: Program that works and sleeps in bursts of random length, like a neighbour on a shared machine.
NEIGHBOUR = """
import random, time
draw = random.Random({seed})
while True:
    end = time.monotonic() + draw.expovariate(1 / 0.05)
    while time.monotonic() < end:
        sum(range(1000))
    time.sleep(draw.expovariate(1 / 0.05))
"""


def network(layers: int) -> Model:
    """Build a chain of equal MatMul and Relu layers, so that work is proportional to the layers."""
    steps = [
        line
        for i in range(layers)
        for line in (f"m{i} = MatMul (r{i - 1}, w{i})", f"r{i} = Relu (m{i})")
    ]
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[{ROWS}, {WIDTH}] x) => (float[{ROWS}, {WIDTH}] y) {{
      r_1 = Identity (x)
      {chr(10).join(steps).replace("r-1", "r_1")}
      y = Identity (r{layers - 1})
    }}"""
    proto = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for i in range(layers):
        weight = (rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weight, f"w{i}"))
    onnx.checker.check_model(proto)
    return Model.from_proto(proto, f"{layers} layers")


def macs(model: Model) -> int:
    """Return the multiply-accumulates of one run."""
    return int8_share(model).float_macs


def options(doc: str, gates: int, results: str) -> argparse.Namespace:
    """Parse the options of a benchmark of the gate."""
    found = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument(
        "--gates", type=int, default=gates, help=f"number of gates (default {gates})"
    )
    found.add_argument("--max-time", type=float, default=30.0, help="seconds each (default 30)")
    found.add_argument(
        "--results", type=Path, default=Path(results), help="file to append to and to resume from"
    )
    return found.parse_args()


def one_gate(model: Model, previous: Model, *, seconds: float, seed: int) -> dict[str, Any]:
    """Run the gate `no_slower_than: previous` in fresh processes, as the command does."""
    with tempfile.TemporaryDirectory(prefix="trimtab-gate-") as folder:
        files = {
            "model.onnx": model.save(Path(folder) / "model.onnx"),
            "previous.onnx": previous.save(Path(folder) / "previous.onnx"),
        }
        budget = Budget("no_slower_than", text="previous.onnx", against="previous.onnx")
        gate = Gate("trial", "model.onnx", (budget,), threads=1)
        start = time.monotonic()
        collector = Collector(gate, ALPHA, seconds, seed, open_model=files.__getitem__)
        facts = collector.collect()
        (judged,) = judge(gate, facts, alpha=ALPHA)
    if facts.interrupted:
        raise KeyboardInterrupt
    found = facts.comparisons["previous.onnx"]
    return {
        "seed": seed,
        "verdict": judged.verdict,
        "seconds": round(time.monotonic() - start, 2),
        "ratio": found.ratio,
        "blocks": found.blocks,
        "fit": found.candidate.noise_check.fit,
    }


def done(path: Path) -> list[dict[str, Any]]:
    """Return the gates that an earlier run finished."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def note(path: Path, entry: dict[str, Any]) -> None:
    """Append one gate at once, so that an interruption loses none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


@contextlib.contextmanager
def neighbour(seed: int) -> Iterator[None]:
    """Run a process beside this one that takes a CPU in bursts."""
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR.format(seed=seed)])
    try:
        time.sleep(random.Random(seed).random() / 10)
        yield
    finally:
        process.kill()
        process.wait()
