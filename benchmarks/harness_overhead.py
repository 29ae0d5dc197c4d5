"""What our harness adds to a latency: p50 in a worker against a bare loop around `session.run`.

Both run the same model with the same options, interleaved in rounds of random order, for a model
of about 0.1 ms and one of about 2 ms. The last line holds the relative differences of the p50s.

    python benchmarks/harness_overhead.py [--seconds 20]
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from trimtab.core.model import Model
from trimtab.core.session import Feeds, SessionConfig, build_session, random_feeds
from trimtab.runtime_bench.process import ProcessArm
from trimtab.runtime_bench.sampling import Plan, Runs, rounds, warm_up

#: (name, rows, layers) of width 256: about 0.1 ms and 2 ms on one core, weights within its cache.
MODELS = (("small", 16, 3), ("large", 64, 16))
WIDTH = 256


@dataclass
class BareLoop:
    """What a user writes: a list, `perf_counter_ns`, `session.run`."""

    session: Any
    name: str = "bare loop"

    def warm(self, feeds: Feeds) -> None:
        """Take the feeds."""
        self.feeds = dict(feeds)

    def time(self, runs: int) -> Runs:
        """The loop."""
        session, feeds, taken = self.session, self.feeds, []
        for _ in range(runs):
            start = time.perf_counter_ns()
            session.run(None, feeds)
            taken.append(time.perf_counter_ns() - start)
        return Runs(tuple(taken))

    def close(self) -> None:
        """Free the session."""
        self.session = None


def chain(rows: int, layers: int) -> Model:
    """A chain of square matrix products and ReLUs."""
    rng = np.random.default_rng(0)
    names = ["x", *(f"t{i}" for i in range(layers - 1)), "y"]
    body = "\n".join(
        f"m{i} = MatMul({a}, w{i})\n{b} = Relu(m{i})"
        for i, (a, b) in enumerate(itertools.pairwise(names))
    )
    proto: onnx.ModelProto = parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 17]>\n'
        f"chain (float[{rows},{WIDTH}] x) => (float[{rows},{WIDTH}] y) {{\n{body}\n}}"
    )
    for i in range(layers):
        weights = rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5
        proto.graph.initializer.append(numpy_helper.from_array(weights.astype("f"), f"w{i}"))
    return Model.from_proto(proto, f"chain {rows}x{WIDTH}x{layers}")


def difference(model: Model, seconds: float) -> float:
    """Ours over bare, minus one, of the p50s."""
    config, feeds = SessionConfig(), random_feeds(model)
    arms = [ProcessArm(model, config, "worker"), BareLoop(build_session(model, config))]
    try:
        run_ns = [warm_up(arm, feeds, time.monotonic_ns, 1.0) for arm in arms]
        taken: list[list[int]] = [[], []]
        end = time.monotonic() + seconds
        for letters in rounds(arms, np.random.default_rng(0), Plan.of(max(run_ns), seconds)):
            for index, runs in letters:
                taken[index] += runs.ns
            if time.monotonic() > end:
                break
    finally:
        for arm in arms:
            arm.close()
    ours, bare = (median(t) for t in taken)
    print(
        f"{model.name}: ours {ours / 1e6:.4f} ms, bare {bare / 1e6:.4f} ms, "
        f"{ours / bare - 1:+.2%}, {len(taken[0])} runs each"
    )
    return ours / bare - 1


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=20.0, help="of each model")
    seconds = arguments.parse_args().seconds
    found = {name: difference(chain(rows, layers), seconds) for name, rows, layers in MODELS}
    print("FIGURE " + " ".join(f"harness_overhead_{name}={d:.4f}" for name, d in found.items()))


if __name__ == "__main__":
    main()
