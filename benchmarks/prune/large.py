"""Pruning of large graphs: time for 5,000 and 10,000 nodes, memory for 2.5 GB of weights.

Time is that of dependency graph, masked copy, cut and updated shapes, on a residual network, with
synthetic weights. Memory is the highest anonymous memory of the process while the whole pass runs
on a file with external data: pages that are only mapped from the file are the kernel's to drop.

    python benchmarks/prune/large.py [--nodes 5000 10000] [--gigabytes 2.5]
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes.pruning.channels import PruneChannels
from trimtab.passes.pruning.dependency.graph import build_dependency_graph, prepare
from trimtab.passes.pruning.structured.cut import cut
from trimtab.passes.pruning.structured.verify import mask

MIB = 1 << 20


class Writer:
    """Builder of a graph, from its inputs on."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []
        self._rng = np.random.default_rng(0)

    def weight(self, *shape: int) -> ir.Value:
        """Return a random weight, scaled by its fan-in."""
        array = self._rng.standard_normal(shape, np.float32)
        array /= np.float32(np.sqrt(max(np.prod(shape[1:]), 1)))
        name = f"w{len(self.weights)}"
        self.weights.append(ir.val(name, const_value=ir.Tensor(array, name=name)))
        return self.weights[-1]

    def add(self, op: str, *inputs: ir.Value) -> ir.Value:
        """Add an operator and return its output."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(ir.node(op, list(inputs), name=name))
        self.nodes[-1].outputs[0].name = name
        return self.nodes[-1].outputs[0]

    def model(self, x: ir.Value, y: ir.Value, shape: list[int | str]) -> Model:
        """Return the model."""
        y.dtype, y.shape = ir.DataType.FLOAT, ir.Shape(shape)
        opsets = {"": 18}
        graph = ir.Graph(
            [x], [y], nodes=self.nodes, initializers=self.weights, opset_imports=opsets, name="big"
        )
        return Model(ir.Model(graph, ir_version=9), name="synthetic")


def residual(count: int, channels: int = 16) -> Model:
    """Return a model of about `count` nodes: residual blocks of two convolutions."""
    write = Writer()
    x = ir.val("x", ir.DataType.FLOAT, ["N", 3, 8, 8])
    here = write.add("Conv", x, write.weight(channels, 3, 1, 1))
    while len(write.nodes) < count - 1:
        inner = write.add(
            "Conv", here, write.weight(channels, channels, 1, 1), write.weight(channels)
        )
        inner = write.add("Relu", inner)
        inner = write.add(
            "Conv", inner, write.weight(channels, channels, 1, 1), write.weight(channels)
        )
        here = write.add("Relu", write.add("Add", inner, here))
    return write.model(x, write.add("Conv", here, write.weight(5, channels, 1, 1)), ["N", 5, 8, 8])


def seconds(count: int) -> float:
    """Return the CPU seconds of the work on a graph of `count` nodes."""
    model = residual(count)
    started = time.process_time()
    with gc_paused():
        work = prepare(model.clone())
        graph = build_dependency_graph(work)
        removed = [int(c) for g in graph.groups for c in g.units[: len(g.units) // 2]]
        mask(work, graph, removed)
        cut(graph, removed)
    return time.process_time() - started


def wide(gigabytes: float, width: int = 4096) -> Model:
    """Return a model of feed-forward layers with `width` x `width` float32 weights."""
    write = Writer()
    x = ir.val("x", ir.DataType.FLOAT, ["N", 64])
    here = write.add("MatMul", x, write.weight(64, width))
    while sum(w.const_value.nbytes for w in write.weights if w.const_value) < gigabytes * 1e9:
        here = write.add("Relu", write.add("MatMul", here, write.weight(width, width)))
    return write.model(x, write.add("MatMul", here, write.weight(width, 8)), ["N", 8])


def anonymous() -> int:
    """Return the bytes of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def memory(gigabytes: float) -> tuple[float, float, float]:
    """Return MiB at most above the start, MiB of the largest weight, gigabytes of the model."""
    with tempfile.TemporaryDirectory() as folder:
        path = wide(gigabytes).spill(Path(folder))
        model = Model.load(path)
        highest, stop = [0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.01):
                highest[0] = max(highest[0], anonymous())

        gc.collect()  # the graph that was written
        before = anonymous()
        watcher = threading.Thread(target=watch)
        watcher.start()
        after = PruneChannels(0.5)(model, Context(target=Target.detect(1)))
        stop.set()
        watcher.join()
        print(f"oracle {after.lineage[-1].notes['oracle']:.1e}", flush=True)
        sizes = [v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value]
        return (highest[0] - before) / MIB, max(sizes) / MIB, sum(sizes) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="*", default=[5000, 10000])
    parser.add_argument("--gigabytes", type=float, default=2.5, help="0 leaves it out")
    args = parser.parse_args()
    if args.nodes:
        seconds(500)  # without what is loaded on first use
    figures = [f"seconds_{count}={seconds(count):.2f}" for count in args.nodes]
    if args.gigabytes:
        most, largest, size = memory(args.gigabytes)
        figures += [f"memory_mib={most:.0f}", f"largest_mib={largest:.0f}", f"model_gb={size:.2f}"]
    print("FIGURE", *figures)


if __name__ == "__main__":
    main()
