"""Shared parts of the gate's benchmarks: models, one gate, results that survive interruptions."""

from __future__ import annotations

import argparse
import contextlib
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


def network(layers: int, rows: int = ROWS, width: int = WIDTH, weights: int | None = None) -> Model:
    """Build a chain of equal MatMul and Relu layers, so that work is proportional to the layers.

    Layers share `weights` weights by turns, by default none, so that a slow model is a small file.
    """
    weights = weights or layers
    steps = "".join(
        f"m{i} = MatMul (r{i}, w{i % weights}) r{i + 1} = Relu (m{i}) " for i in range(layers)
    )
    proto = parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[{rows}, {width}] x) => (float[{rows}, {width}] y) {{
      r0 = Identity (x) {steps} y = Identity (r{layers})
    }}""")
    rng = np.random.default_rng(0)
    for i in range(weights):
        weight = (rng.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weight, f"w{i}"))
    onnx.checker.check_model(proto)
    return Model.from_proto(proto, f"{layers} layers")


def products(model: Model) -> int:
    """Return how many matrix products of equal size really run."""
    return int8_share(model).float_ops


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
