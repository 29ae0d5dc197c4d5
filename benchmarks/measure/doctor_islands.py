"""Check that the doctor finds all float islands of a network quantized by onnxruntime's defaults.

Then its fix is applied, `trimtab quantize` with the target's types, and no island may be left. The
script also counts islands itself, from the running graph alone: float convolutions, products and
additions with int8 on both sides.

    python benchmarks/measure/doctor_islands.py [--model FLOAT.onnx]

Without --model it takes resnet20.onnx of the shared data if found (TRIMTAB_SHARED, or a folder
`shared` beside the checkout), else it builds a residual network.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from common.data import folder
from common.peers import reader
from onnx import numpy_helper, parser

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig, optimized_graph
from trimtab.core.target import PRESETS, Target
from trimtab.passes.quantization.static import QuantizeStatic
from trimtab.passes.simplify.simplify import Simplify
from trimtab.runtime_bench.doctor.diagnose import Diagnosis, diagnose


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", type=Path, help="a float residual network")
    path = options.parse_args().model or folder() / "resnet20.onnx"
    model = Model.load(path) if path.exists() else built()
    data = calibration(model)
    target = Target.detect(1) if Target.detect(1).isa == "x64" else PRESETS["x64-avx512-vnni"]
    before = examined("onnxruntime's defaults", by_onnxruntime(model, data), target)
    ctx = Context(target=target, data=data)
    after = examined("after the fix", QuantizeStatic()(Simplify()(model, ctx), ctx), target)
    named = islands(before)
    print(
        f"FIGURE islands_before={between(before)} islands_named={len(named)} "
        f"islands_explained={sum(f.cause != 'unexplained' for f in named)} "
        f"islands_after={between(after)} healthy_after={after.healthy}"
    )


def examined(title: str, model: Model, target: Target) -> Diagnosis:
    """Diagnose a model and print its islands by cause."""
    diagnosis = diagnose(model, random_feeds(model), SessionConfig(), target=target, profiled=False)
    causes = Counter(f.cause for f in islands(diagnosis))
    ops = Counter(node.op_type for node in optimized_graph(model).graph)
    print(f"{title}: islands by cause {dict(causes)}; operators {dict(ops.most_common(6))}")
    return diagnosis


def islands(diagnosis: Diagnosis) -> list:
    return [f for f in diagnosis.findings if f.kind == "float-island"]


def between(diagnosis: Diagnosis) -> int:
    """Count the float nodes between a DequantizeLinear of an activation and a QuantizeLinear.

    Counted from the running graph without the doctor's own grouping: runs of float nodes from one
    conversion to the next.
    """
    seen: set[str] = set()
    count = 0
    for node in diagnosis.facts.running:
        if node.op_type != "QuantizeLinear":
            continue
        frontier = [node.inputs[0].producer()]
        inside: set[str] = set()
        reaches = False
        while frontier:
            source = frontier.pop()
            if source is None or source.outputs[0].name in inside:
                continue
            if source.op_type == "DequantizeLinear":
                reaches |= source.inputs[0].const_value is None
                continue
            inside.add(source.outputs[0].name)
            frontier += [v.producer() for v in source.inputs if v is not None]
        if reaches and inside and not inside & seen:
            count += 1
        seen |= inside
    return count


def by_onnxruntime(model: Model, data: Dataset) -> Model:
    """Quantize with onnxruntime's defaults: static, S8S8, per tensor."""
    from onnxruntime.quantization import quantize_static

    with tempfile.TemporaryDirectory(prefix="trimtab-") as scratch:
        source, out = Path(scratch) / "float.onnx", Path(scratch) / "int8.onnx"
        model.save(source)
        quantize_static(source, out, reader(dict(batch.feeds) for batch in data))
        return Model.from_proto(onnx.load(out), "int8 by onnxruntime")


def calibration(model: Model) -> Dataset:
    """Return normal random numbers; the islands do not depend on the ranges."""
    feeds = random_feeds(model, batch=16)
    return Dataset.of_arrays({name: np.asarray(array) for name, array in feeds.items()}, batch=4)


def built(blocks: int = 6) -> Model:
    """Build a stem, residual blocks of two convolutions each, a pool and a classifier."""
    rng, shapes = np.random.default_rng(0), {"w": (16, 3, 3, 3), "fc": (10, 16)}
    steps = ["c = Conv <pads = [1, 1, 1, 1]> (x, w)", "r0 = Relu (c)"]
    for i in range(blocks):
        shapes |= {f"a{i}": (16, 16, 3, 3), f"b{i}": (16, 16, 3, 3)}
        steps += [
            f"p{i} = Conv <pads = [1, 1, 1, 1]> (r{i}, a{i})",
            f"q{i} = Relu (p{i})",
            f"s{i} = Conv <pads = [1, 1, 1, 1]> (q{i}, b{i})",
            f"t{i} = Add (s{i}, r{i})",
            f"r{i + 1} = Relu (t{i})",
        ]
    steps += [f"g = GlobalAveragePool (r{blocks})", "f = Flatten (g)"]
    steps += ["y = Gemm <transB = 1> (f, fc)"]
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 3, 32, 32] x) => (float[N, 10] y) {{
      {chr(10).join(steps)}
    }}"""
    proto = parser.parse_model(text)
    for name, shape in shapes.items():
        array = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return Model.from_proto(proto, "a residual network")


if __name__ == "__main__":
    main()
