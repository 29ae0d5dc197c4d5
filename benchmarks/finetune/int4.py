"""resnet20 with 4-bit weights and 8-bit activations: rounded three ways, and trained.

    python benchmarks/finetune/int4.py [--minutes 10] [--threads 2] [--seeds 0 1 2] [--out FOLDER]

Goal: within 1 point of float after training. The weights are in int8 tensors and use 16 of their
values, so that every runtime can run them. As is customary, the first and the last layer, 0.4% of
the weights, keep 8 bits; --all gives them 4 too. No choice is made on the evaluation images.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
from common.data import cifar, network, top1
from runs import by_seed, limit_time, parser_of, say, spread, timed_fields, train

from trimtab.core.context import Context
from trimtab.core.data import Floats32
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes import QuantizeStatic, RoundWeights, Simplify
from trimtab.passes.training.torch_graph import to_module
from trimtab.passes.training.torch_graph.roles import QuantizationParameters

#: Largest integer of 4 bits; rounding leaves out -8, so that the range is symmetric.
LARGEST = 7
#: Shares of the largest magnitude to try as the end of the range.
SHARES = np.linspace(0.4, 1.0, 61)


def kernels(model: Model, *, ends: bool) -> dict[str, QuantizationParameters]:
    """Return the quantization parameters of int8 kernels, with the first and last where `ends`."""
    found = {
        name: weight.qparams
        for name, weight in to_module(model).weights.items()
        if weight.role == "kernel" and weight.qparams is not None
    }
    order = [v.name for node in model.graph for v in node.inputs if v and v.name in found]
    inner = order if ends else order[1:-1]
    return {name: found[name] for name in inner if name is not None}


def four_bits(model: Model, *, ends: bool, search: bool) -> Model:
    """Round the kernels of an int8 model to the nearest of 15 values a channel.

    Args:
        model: int8 model; unchanged.
        ends: round the first and the last layer as well.
        search: choose the range of a channel by least squared error, not by its largest value.
    """
    made = model.clone()
    for name, qparams in kernels(model, ends=ends).items():
        value, step = (made.graph.initializers[n] for n in (name, qparams.scale))
        shape = [-1 if i == qparams.axis else 1 for i in range(len(value.shape))]
        fine = step.const_value.numpy().reshape(shape if step.const_value.size > 1 else ())
        floats = value.const_value.numpy().astype(np.float32) * fine
        rows = np.moveaxis(floats, qparams.axis, 0).reshape(floats.shape[qparams.axis], -1)
        scale = scales(rows, search=search)
        integers = np.round(floats / scale.reshape(shape)).clip(-LARGEST, LARGEST)
        value.const_value = ir.tensor(integers.astype(np.int8), name=name)
        step.const_value = ir.tensor(scale, name=step.name)
        step.shape = step.const_value.shape
    return made


def scales(rows: Floats32, *, search: bool) -> Floats32:
    """Return the scale of each channel: (C, weights) -> (C,)."""
    ends = np.abs(rows).max(axis=1).clip(1e-8)
    if not search:
        return (ends / LARGEST).astype(np.float32)
    tried = ends[:, None] * SHARES / LARGEST  # (C, shares)
    errors = []
    for scale in tried.T:
        near = np.round(rows / scale[:, None]).clip(-LARGEST, LARGEST) * scale[:, None]
        errors.append(np.square(near - rows).sum(axis=1))
    best = np.argmin(errors, axis=0)
    return tried[np.arange(len(rows)), best].astype(np.float32)


def check(model: Model, *, ends: bool) -> Model:
    """Return the model; fail where integers have more than 4 bits."""
    for name in kernels(model, ends=ends):
        values = model.graph.initializers[name].const_value.numpy()
        assert -LARGEST - 1 <= values.min() <= values.max() <= LARGEST, f"{name} is wider"
    return model


def rounded_by_layer(model: Model, float_model: Model, data: Dataset) -> Model:
    """Round each weight up or down by the error of its layer's output."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float.onnx"
        float_model.save(file)
        return RoundWeights(reference=str(file))(model, Context(data=data))


def main() -> None:
    parser = parser_of(__doc__, "resnet20")
    limit_time(parser, 10)
    parser.add_argument("--all", action="store_true", help="first and last layer in 4 bits too")
    args = parser.parse_args()
    original, data, unseen = (
        network(args.network),
        cifar("train", args.train),
        cifar("eval", args.eval),
    )
    ctx = Context(target=Target.detect(1), data=data)
    simple = Simplify()(original, ctx)
    int8 = QuantizeStatic(samples=512)(simple, ctx)
    coarse = {
        "nearest": four_bits(int8, ends=args.all, search=False),
        "nearest_searched": four_bits(int8, ends=args.all, search=True),
    }
    start = rounded_by_layer(coarse["nearest_searched"], simple, data)
    coarse["round_weights"] = start
    figures = {"float": top1(original, unseen), "int8": top1(int8, unseen)}
    figures |= {name: top1(check(model, ends=args.all), unseen) for name, model in coarse.items()}
    for name, value in figures.items():
        print(f"{name} {value:.4f}", flush=True)
    fields = timed_fields(args, learning_rate=2e-4)
    say(f"training from the rounded weights for {args.minutes:g} minutes a seed")
    found = by_seed(
        args,
        "trained",
        unseen,
        lambda seed: check(
            train(start, data, seed, teacher=original, fields=fields), ends=args.all
        ),
    )
    lost = figures["float"] - statistics.fmean(found)
    listed = " ".join(f"{name}={value:.4f}" for name, value in figures.items())
    print(f"FIGURE {listed} trained={spread(found)} drop={lost:.4f}")


if __name__ == "__main__":
    main()
