"""resnet20 with weights of 4 bits and activations of 8: rounded to the nearest, and trained so.

    python benchmarks/recover_int4.py --minutes 10 [--seeds 3]

The weights stand in int8 tensors and use 16 of their values, so that every runtime can run it.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import onnx_ir as ir
from recover_data import cifar, network, top1

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.progress import Stderr
from trimtab.core.target import Target
from trimtab.passes import QuantizeStatic, Recover, Simplify
from trimtab.passes.torch_graph import to_module


def four_bits(model: Model, original: Model) -> Model:
    """The kernels of a quantized model rounded to 15 values a channel instead of 255."""
    made = model.clone()
    for name, weight in to_module(original).weights.items():
        if weight.role != "kernel" or weight.stored is None:
            continue
        value = made.graph.initializers[name]
        step = made.graph.initializers[weight.stored.scale]
        shape = [-1 if i == weight.stored.axis else 1 for i in range(len(value.shape))]
        scale = step.const_value.numpy()
        floats = value.const_value.numpy().astype(np.float32) * scale.reshape(
            shape if scale.ndim else ()
        )
        coarse = scale * 127 / 7
        rounded = np.round(floats / coarse.reshape(shape if scale.ndim else ())).clip(-7, 7)
        value.const_value = ir.tensor(rounded.astype(np.int8), name=name)
        step.const_value = ir.tensor(coarse.astype(np.float32), name=step.name)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--train", type=int, default=20_000, help="training images")
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--recover", default="{}", help="further fields of recover, as JSON")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    teacher, train, unseen = (
        network(args.network),
        cifar("train", args.train),
        cifar("eval", args.eval),
    )
    ctx = Context(target=Target.named("x64-avx512-vnni"), data=train)
    rounded = QuantizeStatic(samples=256)(Simplify()(teacher, ctx), ctx)
    coarse = four_bits(rounded, rounded)
    for name, model in (("float", teacher), ("int8", rounded), ("4 bit, nearest", coarse)):
        print(f"{name} {top1(model, unseen):.4f}", flush=True)
    fields = {"batch": 128, "learning_rate": 1e-3, "augment": "both", "time": f"{args.minutes:g}m"}
    for seed in range(args.seeds):
        how = Recover.from_json(fields | json.loads(args.recover)).with_fields(teacher=teacher)
        after = how(coarse, Context(data=train, progress=Stderr(), seed=seed))
        notes = {k: after.lineage[-1].notes[k] for k in ("steps", "best_step", "validation")}
        print(f"seed {seed}: 4 bit, trained {top1(after, unseen):.4f} {notes}", flush=True)


if __name__ == "__main__":
    main()
