"""What the worked examples share: pictures, a network trained on them, and the table at the end.

Without --data the pictures are the handwritten digits that come with scikit-learn, enlarged to what
the networks expect. Labelled pictures of your own are DATA as every command takes it, such as an
.npz with `input` (N, 3, H, W) float32 and `labels` (N,), for CIFAR-10 or anything else.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

import trimtab
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Progress, Silent, Stderr
from trimtab.core.target import Target
from trimtab.core.text import bytes_text, table
from trimtab.models import Training, digits_arrays, shifted, train
from trimtab.models.training import seeded

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures in two parts that share none.

    Attributes:
        train: to train, calibrate and choose on.
        test: for the figures that are printed, and for nothing else.
        classes: number of labels.
    """

    train: Dataset
    test: Dataset
    classes: int


def digits(size: int = 32) -> Pictures:
    """The handwritten digits, three equal channels, enlarged from 8 x 8 to `size` x `size`."""
    parts = {name: digits_arrays(name) for name in ("train", "calibration", "validation", "test")}
    training = [parts[name] for name in ("train", "calibration", "validation")]
    images = np.concatenate([x for x, _ in training])
    labels = np.concatenate([y for _, y in training])
    test, truth = parts["test"]
    return Pictures(
        Dataset.of_arrays({"input": enlarged(images, size)}, labels),
        Dataset.of_arrays({"input": enlarged(test, size)}, truth),
        classes=10,
    )


def enlarged(images: Array, size: int) -> Array:
    """(N, 1, 8, 8) -> (N, 3, size, size), around 0; every pixel becomes a square."""
    factor = size // images.shape[-1]
    large = images.repeat(factor, axis=2).repeat(factor, axis=3)
    return np.ascontiguousarray((large - 0.3).repeat(3, axis=1), dtype=np.float32)


def pictures_of(args: argparse.Namespace) -> Pictures:
    """The pictures that the options name."""
    if args.data is None:
        return digits(args.size)
    given = Dataset.open(args.data)
    if args.test is not None:
        train_part, test = given, Dataset.open(args.test)
    else:
        parts = given.split({"train": 0.8, "test": 0.2}, seed=args.seed)
        train_part, test = parts["train"], parts["test"]
    labels = [b.labels for b in train_part if b.labels is not None]
    return Pictures(train_part, test, classes=int(np.concatenate(labels).max()) + 1)


def options(text: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all examples have."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--data", help="labelled pictures; the handwritten digits by default")
    parser.add_argument("--test", help="others to test on; a fifth of --data by default")
    parser.add_argument("--size", type=int, default=32, help="of the digits, a multiple of 8")
    parser.add_argument("--width", type=float, default=0.25, help="factor on all channels")
    parser.add_argument("--epochs", type=int, default=8, help="of the float network")
    parser.add_argument("--batch", type=int, default=32, help="pictures in a step")
    parser.add_argument("--recover", type=float, default=4, help="epochs of each retraining")
    parser.add_argument("--seconds", type=float, default=10, help="to measure speed in; 0: do not")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def context(pictures: Pictures, seed: int, progress: Progress | None = None) -> Context:
    """Where passes find data, for this machine and one thread."""
    told = Silent() if progress is None else progress
    return Context(target=Target.detect(1), data=pictures.train, progress=told, seed=seed)


def made(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The network with first weights drawn from the seed."""
    with seeded(seed):
        return build()


def trained(
    build: Callable[[], nn.Module], pictures: Pictures, args: argparse.Namespace
) -> nn.Module:
    """The network after training on the labels."""
    batches = list(pictures.train)
    images = np.concatenate([batch.feeds["input"] for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches if batch.labels is not None])
    recipe = Training(
        epochs=args.epochs, batch_size=args.batch, learning_rate=0.05, seed=args.seed, threads=1
    )
    network = made(build, args.seed)
    return train(network, images, labels, recipe, augment=shifted, progress=Stderr())


def input_of(pictures: Pictures) -> list[str]:
    """The input as `export` takes it: its name, shape and type."""
    shape = next(iter(pictures.test.sized(1))).feeds["input"].shape
    return [f"input={'x'.join(map(str, shape))}:float32"]


def top1(model: trimtab.Model, pictures: Pictures) -> float:
    """Share of the test pictures that onnxruntime gets right."""
    return trimtab.evaluate(model, pictures.test, "top1").value


def zeros(model: trimtab.Model) -> float:
    """Share of the weights that are zero."""
    arrays = [v.const_value.numpy() for v in model.graph.initializers.values() if v.const_value]
    kernels = [a for a in arrays if a.ndim > 1]
    return sum((a == 0).sum() for a in kernels) / max(sum(a.size for a in kernels), 1)


def print_table(
    models: Mapping[str, trimtab.Model], pictures: Pictures, seconds: float
) -> dict[str, float]:
    """Size, zeros, top-1 and speed of each; the first is what the others are compared with.

    Returns:
        Top-1 of each.
    """
    found = {name: top1(model, pictures) for name, model in models.items()}
    speeds = _speeds(list(models.values()), pictures, seconds)
    rows = []
    for (name, model), speed in zip(models.items(), speeds, strict=True):
        file = dataclasses.replace(model, lineage=()).to_bytes()
        packed = len(gzip.compress(file, mtime=0))
        share = f"{zeros(model):.0%}"
        sizes = [bytes_text(len(file)), bytes_text(packed)]
        rows.append([name, *sizes, share, f"{found[name]:.4f}", speed])
    print("\n".join(table(["model", "file", "gzip", "zeros", "top-1", "speed"], rows)))
    print(f"\ntop-1 on {len(pictures.test)} pictures that nothing was trained or chosen on")
    return found


def _speeds(models: list[trimtab.Model], pictures: Pictures, seconds: float) -> list[str]:
    """How many times as fast as the first each is on one picture, with its interval."""
    first, *others = models
    if seconds <= 0:
        return ["-" for _ in models]
    feeds = dict(next(iter(pictures.test.sized(1))).feeds)
    one = SessionConfig(threads=1)
    found = trimtab.compare(first, others, feeds, config=one, max_seconds=seconds)
    return ["1.00x", *(f"{c.ratio:.2f}x [{c.low:.2f}, {c.high:.2f}]" for c in found)]
