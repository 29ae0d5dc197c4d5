"""MobileNetV2 in int8 with one scale for each tensor: made to collapse, then mended by steps.

    python benchmarks/per_tensor_rescue.py [--eval 5000] [--samples 256] [--seeds 1]

The collapse known from ImageNet does not show in the briefly trained network, so it is made: its
ReLU6 becomes ReLU, and random positive factors, log-uniform from 1/16 to 16, are moved for each
channel from each layer to the next. The function stays; the ranges of whole tensors are wrecked.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
from finetune_data import cifar, network, top1

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.progress import Stderr
from trimtab.core.target import Target
from trimtab.passes import CorrectBias, Equalize, QuantizeStatic, RoundWeights, Simplify
from trimtab.passes.quantization.algorithms.scalable_pairs import (
    find_pairs,
    out_channels,
    scaled_input,
    scaled_output,
)
from trimtab.passes.quantization.algorithms.scalable_pairs import weight_array as weight

#: Factors lie between this and its inverse.
LARGEST = 16.0


def with_relus(model: Model) -> Model:
    """Every Clip(0, 6) as Relu."""
    made = model.clone()
    for node in list(made.graph):
        if node.op_type == "Clip":
            relu = ir.node("Relu", [node.inputs[0]], name=node.name)
            name, old = node.outputs[0].name, node.outputs[0]
            relu.outputs[0].type, relu.outputs[0].shape = old.type, old.shape
            made.graph.insert_before(node, relu)
            old.replace_all_uses_with(relu.outputs[0])
            made.graph.remove(node, safe=True)
            relu.outputs[0].name = name
    return made


def wrecked(model: Model, seed: int) -> Model:
    """The same function with random factors moved from each layer's channels to the next."""
    made, rng = model.clone(), np.random.default_rng(seed)
    pairs, _ = find_pairs(made.graph, clips=False)
    for pair in pairs:
        s = LARGEST ** rng.uniform(-1, 1, out_channels(pair.first))
        store(pair.first.inputs[1], scaled_output(pair.first, weight(pair.first), s))
        store(pair.second.inputs[1], scaled_input(pair.second, weight(pair.second), 1 / s))
        bias = pair.first.inputs[2] if len(pair.first.inputs) > 2 else None
        if bias is not None:
            store(bias, bias.const_value.numpy() * s)
    return made


def store(value: ir.Value, array: np.ndarray) -> None:
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--samples", type=int, default=256, help="calibration images")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--network", default="mobilenet_v2")
    args = parser.parse_args()
    data, unseen = cifar("train", 4 * args.samples), cifar("eval", args.eval)
    ctx = Context(target=Target.named("x64-avx512-vnni"), data=data, progress=Stderr())
    base = with_relus(Simplify()(network(args.network), ctx))
    for seed in range(args.seeds):
        one(wrecked(base, seed), f"rescue.{args.network}.seed{seed}", unseen, ctx, args.samples)


def one(model: Model, label: str, unseen, ctx: Context, samples: int) -> None:
    whole = QuantizeStatic(per_channel=False, samples=samples)
    floating = top1(model, unseen)

    def tell(step: str, candidate: Model) -> None:
        value = top1(candidate, unseen)
        drop = 100 * (floating - value)
        print(f"FIGURE {label}.{step} top1={value:.4f} drop_points={drop:.2f}", flush=True)

    tell("float", model)
    tell("plain", whole(model, ctx))
    equal = Equalize()(model, ctx)
    mended = whole(equal, ctx)
    tell("equalize", mended)
    with tempfile.TemporaryDirectory() as folder:
        reference = str(equal.save(Path(folder) / "float.onnx"))
        mended = CorrectBias(reference=reference, samples=samples)(mended, ctx)
        tell("correct_bias", mended)
        tell("round_weights", RoundWeights(reference=reference, samples=samples)(mended, ctx))


if __name__ == "__main__":
    main()
