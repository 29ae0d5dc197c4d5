"""Measure the overhead of the harness: p50 in a worker against a bare loop of `session.run`.

Both run the same model with the same options, interleaved in rounds of random order, for a model
of about 0.1 ms and one of about 2 ms. Both sides build new sessions in each round, since where
their memory lies changes a latency by more than a harness does. The last line has the relative
differences of the p50s.

    python benchmarks/measure/harness_overhead.py [--seconds 20]
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import Feeds, SessionConfig, build_session
from trimtab.runtime_bench.measure.contenders.contender import Contender
from trimtab.runtime_bench.measure.contenders.pacing import WARM_RUNS, BlockPlan, warm_up
from trimtab.runtime_bench.measure.contenders.subprocess_contender import SubprocessContender
from trimtab.runtime_bench.measure.timing import Runs
from trimtab.runtime_bench.stats.e_process import PairedTest

#: (name, rows, layers) of width 256: about 0.1 ms and 2 ms on one core, weights within its cache.
MODELS = (("small", 16, 6), ("large", 64, 28))
WIDTH = 256


@dataclass
class BareLoop:
    """A loop as users write it: a list, `perf_counter_ns`, `session.run`."""

    model: Model
    config: SessionConfig
    name: str = "bare loop"
    worker: None = None

    def warm(self, feeds: Feeds) -> None:
        """Take the feeds."""
        self.feeds = dict(feeds)
        self.renew()

    def renew(self) -> None:
        """Build a new session, and run it a few times."""
        self.session: Any = build_session(self.model, self.config)
        self.time(WARM_RUNS)

    def time(self, runs: int) -> Runs:
        """Run the loop."""
        session, feeds, taken = self.session, self.feeds, []
        names = [output.name for output in session.get_outputs()]
        for _ in range(runs):
            start = time.perf_counter_ns()
            session.run(names, feeds)
            taken.append(time.perf_counter_ns() - start)
        return Runs(tuple(taken))

    def close(self) -> None:
        """Free the session."""
        self.session = None


def chain(rows: int, layers: int) -> Model:
    """Build a chain of square matrix products and ReLUs."""
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
    """Return ours over bare, minus one: the ratio of each round's p50s, pooled over rounds."""
    config, feeds = SessionConfig(), random_feeds(model)
    contenders: list[Contender] = [
        SubprocessContender(model, config, "worker"),
        BareLoop(model, config),
    ]
    rng, test = np.random.default_rng(0), PairedTest()
    taken: list[list[int]] = [[], []]
    try:
        plan = BlockPlan.of(
            max(warm_up(a, feeds, time.monotonic_ns, 1.0) for a in contenders), 0, seconds
        )
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            slots: list[list[int]] = [[], []]
            for i in rng.permutation(2):
                contenders[i].renew()
            for i in [0, 1, 1, 0] if rng.integers(2) else [1, 0, 0, 1]:
                slots[i] += contenders[i].time(plan.discard + plan.runs).after(plan.discard).ns
            test.add(math.log(median(slots[0]) / median(slots[1])))
            taken = [old + new for old, new in zip(taken, slots, strict=True)]
    finally:
        for contender in contenders:
            contender.close()
    found = math.expm1(test.estimate())
    low, high = (math.expm1(end) for end in test.interval(0.05))
    ours, bare = (median(t) / 1e6 for t in taken)
    print(
        f"{model.name}: p50 ours {ours:.4f} ms, bare {bare:.4f} ms; by rounds {found:+.2%} "
        f"[{low:+.2%}, {high:+.2%}], {test.blocks} rounds, {len(taken[0])} runs each"
    )
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=20.0, help="of each model")
    seconds = arguments.parse_args().seconds
    found = {name: difference(chain(rows, layers), seconds) for name, rows, layers in MODELS}
    print("FIGURE " + " ".join(f"harness_overhead_{name}={d:.4f}" for name, d in found.items()))


if __name__ == "__main__":
    main()
