"""Shared parts of the worked examples: pictures, training of a network, and the final table.

Without --data the pictures are the handwritten digits that come with scikit-learn, enlarged to the
size that the networks expect. Labelled pictures of your own are DATA as every command takes it,
such as an .npz with `input` (N, 3, H, W) float32 and `labels` (N,), for CIFAR-10 or anything else.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

import trimtab
from trimtab.core.context import Context
from trimtab.core.data import Floats32
from trimtab.core.dataset import Dataset
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Progress, Silent, Stderr
from trimtab.core.target import Target
from trimtab.core.text import bytes_text, table
from trimtab.models import Training, digits_arrays, shifted, train
from trimtab.models.training import seeded


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures in two disjoint parts.

    Attributes:
        train: pictures to train, calibrate and choose on.
        test: pictures for the printed figures only.
        classes: number of labels.
    """

    train: Dataset
    test: Dataset
    classes: int


def digits(size: int = 32) -> Pictures:
    """Load the handwritten digits with three equal channels, enlarged to `size` x `size`."""
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


def enlarged(images: Floats32, size: int) -> Floats32:
    """Enlarge (N, 1, 8, 8) to (N, 3, size, size), around 0; every pixel becomes a square."""
    factor = size // images.shape[-1]
    large = images.repeat(factor, axis=2).repeat(factor, axis=3)
    return np.ascontiguousarray((large - 0.3).repeat(3, axis=1), dtype=np.float32)


def pictures_of(args: argparse.Namespace) -> Pictures:
    """Load the pictures that the options name."""
    if args.data is None:
        return digits(args.size)
    data = Dataset.open(args.data)
    if args.test is not None:
        train_part, test = data, Dataset.open(args.test)
    else:
        parts = data.split({"train": 0.8, "test": 0.2}, seed=args.seed)
        train_part, test = parts["train"], parts["test"]
    labels = [b.labels for b in train_part if b.labels is not None]
    return Pictures(train_part, test, classes=int(np.concatenate(labels).max()) + 1)


def options(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all examples share."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--data", help="labelled pictures; the handwritten digits by default")
    parser.add_argument("--test", help="others to test on; a fifth of --data by default")
    parser.add_argument("--size", type=int, default=32, help="of the digits, a multiple of 8")
    parser.add_argument("--width", type=float, default=0.25, help="factor on all channels")
    parser.add_argument("--epochs", type=int, default=8, help="of the float network")
    parser.add_argument("--batch", type=int, default=32, help="pictures in a step")
    parser.add_argument(
        "--finetune", "--recover", type=float, default=4, help="epochs of each fine-tuning"
    )
    parser.add_argument(
        "--seconds", type=float, default=10, help="time to measure speed; 0 for none"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


def context(pictures: Pictures, seed: int, progress: Progress | None = None) -> Context:
    """Return the context of passes: training data, this machine, one thread."""
    progress = Silent() if progress is None else progress
    return Context(target=Target.detect(1), data=pictures.train, progress=progress, seed=seed)


def seeded_network(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network with initial weights drawn from the seed."""
    with seeded(seed):
        return build()


def trained(
    build: Callable[[], nn.Module], pictures: Pictures, args: argparse.Namespace
) -> nn.Module:
    """Build a network and train it on the labels."""
    batches = list(pictures.train)
    images = np.concatenate([batch.feeds["input"] for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches if batch.labels is not None])
    recipe = Training(
        epochs=args.epochs, batch_size=args.batch, learning_rate=0.05, seed=args.seed, threads=1
    )
    network = seeded_network(build, args.seed)
    return train(network, images, labels, recipe, augment=shifted, progress=Stderr())


def input_of(pictures: Pictures) -> list[str]:
    """Describe the input as `export` takes it: name, shape and type."""
    shape = next(iter(pictures.test.sized(1))).feeds["input"].shape
    return [f"input={'x'.join(map(str, shape))}:float32"]


def top1(model: trimtab.Model, pictures: Pictures) -> float:
    """Return top-1 on the test pictures in onnxruntime."""
    return trimtab.evaluate(model, pictures.test, "top1").value


def zeros(model: trimtab.Model) -> float:
    """Return the share of weights that are zero."""
    arrays = [v.const_value.numpy() for v in model.graph.initializers.values() if v.const_value]
    kernels = [a for a in arrays if a.ndim > 1]
    return sum((a == 0).sum() for a in kernels) / max(sum(a.size for a in kernels), 1)


def print_table(
    models: Mapping[str, trimtab.Model], pictures: Pictures, seconds: float
) -> dict[str, float]:
    """Print size, zeros, top-1 and speed of each model, compared with the first.

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
    """Return the speed of each on one picture relative to the first, with its interval."""
    first, *others = models
    if seconds <= 0:
        return ["-" for _ in models]
    feeds = dict(next(iter(pictures.test.sized(1))).feeds)
    one = SessionConfig(threads=1)
    found = trimtab.compare(first, others, feeds, config=one, max_seconds=seconds)
    return ["1.00x", *(f"{c.ratio:.2f}x [{c.low:.2f}, {c.high:.2f}]" for c in found)]
