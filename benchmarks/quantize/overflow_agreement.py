"""Agreement of the simulation of 16-bit pair sums with the layers that really saturate.

    python benchmarks/quantize/overflow_agreement.py [--network resnet20] [--samples 32]

Each convolution of the int8 network, with 8-bit weights, is run by itself on its integer inputs,
once as deployed and once with exact sums (session.x64quantprecision). Outputs that differ are real
saturation. The script needs an x64 CPU without VNNI; elsewhere nothing saturates, which it
reports.
"""

from __future__ import annotations

import argparse

import numpy as np
import onnx_ir as ir
from common.data import cifar, network

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort import overflow
from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.static import QuantizeStatic

EXACT = SessionConfig(config={"session.x64quantprecision": "1"})


def alone(model: Model, conv: ir.Node) -> tuple[Model, str, str]:
    """Return a convolution and its Q/DQ pairs as a model; names of its input and output."""
    source, sink = conv.inputs[0].producer().inputs[0], next(iter(conv.outputs[0].uses())).node
    copy = model.clone()
    graph = copy.graph
    nodes = {node.name: node for node in graph}
    integers = nodes[conv.name].inputs[0].producer().inputs[0]
    fed = ir.val("integers", dtype=ir.DataType.UINT8, shape=ir.Shape([None] * 4))
    integers.replace_all_uses_with(fed)
    result = nodes[sink.name].outputs[0]
    result.dtype = ir.DataType.UINT8
    graph.inputs[:], graph.outputs[:] = [fed], [result]
    needed: set[ir.Node] = set()
    waiting = [result.producer()]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in needed:
            needed.add(node)
            waiting += [v.producer() for v in node.inputs if v is not None]
    graph.remove([node for node in graph if node not in needed], safe=False)
    return copy, source.name, result.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument(
        "--positions", type=int, help="examined in a batch (default: all)", default=1 << 40
    )
    args = parser.parse_args()
    # All positions, so that the comparison is exact; the doctor examines a sample of them.
    overflow.POSITIONS = args.positions or overflow.POSITIONS
    if Target.detect().vnni:
        print("this CPU sums in 32 bits, so nothing saturates here: nothing to compare with")
        return
    data = cifar("train", 256)
    model = QuantizeStatic(data=data)(
        network(args.network), Context(target=Target.named("x64-avx512-vnni"))
    )
    few = data.take(args.samples)
    named = {found.node: found for found in overflow.find_overflows(model, few)}
    feeds = {"input": np.concatenate([batch.feeds["input"] for batch in few])}
    counts = {"layers": 0, "changed": 0, "missed": 0, "rounded_away": 0}
    for conv in [node for node in model.graph if node.op_type == "Conv"]:
        layer, source, _ = alone(model, conv)
        observed = build_session(with_outputs(model, [source]), SessionConfig(level="basic"))
        taken = {"integers": run(observed, feeds, [source])[source]}
        (deployed,) = run(build_session(layer), taken).values()
        (exact,) = run(build_session(layer, EXACT), taken).values()
        changed = np.abs(deployed.astype(int) - exact)
        predicted = named.get(conv.name)
        counts["layers"] += 1
        counts["changed"] += bool(changed.any())
        counts["missed"] += bool(changed.any()) and predicted is None
        counts["rounded_away"] += predicted is not None and not changed.any()
        print(
            f"{conv.name}: simulated {predicted.share if predicted else 0:.2e} of the pairs, up to "
            f"{predicted.largest / 32767 if predicted else 1:.2f}x; really "
            f"{np.mean(changed > 0):.2e} of the outputs changed, by up to {changed.max()} steps",
            flush=True,
        )
    figures = " ".join(f"{name}={count}" for name, count in counts.items())
    print(f"FIGURE overflow_agreement.{args.network} {figures}")


if __name__ == "__main__":
    main()
