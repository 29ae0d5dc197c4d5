"""Static int8 of a long chain: time for 5,000 and for 10,000 nodes, and their ratio.

    python benchmarks/quantize/chain.py [--nodes 5000 10000] [--repeats 5]

The chain is Conv and Relu in turn, with small weights, so that what grows is the graph. The ratio
is of the fastest runs; 2.0 is linear. Seconds are CPU time of the process, which other work on the
machine moves less than it moves the clock.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes import QuantizeStatic

CHANNELS = 4
SIDE = 4
SAMPLES = 8


def chain(nodes: int) -> Model:
    """(N, 4, 4, 4) float through `nodes` operators, half of them 1x1 convolutions."""
    rng = np.random.default_rng(0)
    made, weights, value = [], [], "x"
    for index in range(nodes):
        name = f"v{index}" if index < nodes - 1 else "y"
        if index % 2:
            made.append(helper.make_node("Relu", [value], [name], name=f"relu{index}"))
        else:
            array = (np.eye(CHANNELS) + 0.01 * rng.standard_normal((CHANNELS, CHANNELS))).astype(
                np.float32
            )
            weights.append(numpy_helper.from_array(array[..., None, None], f"w{index}"))
            made.append(helper.make_node("Conv", [value, f"w{index}"], [name], name=f"conv{index}"))
        value = name
    shape = ["N", CHANNELS, SIDE, SIDE]
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in ("x", "y")]
    graph = helper.make_graph(made, "chain", ends[:1], ends[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Model.from_proto(proto, f"chain of {nodes}")


def seconds(nodes: int) -> float:
    """CPU time of one quantization."""
    model = chain(nodes)
    x = np.random.default_rng(1).standard_normal((SAMPLES, CHANNELS, SIDE, SIDE))
    ctx = Context(target=Target.named("x64-avx512-vnni"))
    step = QuantizeStatic(data=Dataset.of_arrays({"x": x.astype(np.float32)}))
    start = time.process_time()
    made = step(model, ctx)
    taken = time.process_time() - start
    assert made.lineage[-1].notes["int8_ops"] == (nodes + 1) // 2
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", nargs=2, type=int, default=[5000, 10000])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    # A process for each run, by turns: what one leaves behind in memory slows down the next.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        turns = pool.map(seconds, args.nodes * args.repeats, chunksize=1)
    few, many = min(turns[0::2]), min(turns[1::2])
    told = ", ".join(f"{taken:.1f}" for taken in turns)
    print(f"{args.nodes[0]} and {args.nodes[1]} nodes by turns, in seconds: {told}")
    print(f"FIGURE quantize_chain.ratio={many / few:.2f} (at most 2.2)")


if __name__ == "__main__":
    main()
