"""Table of the effects of learning rate, batch normalisation and dropout on fine-tuning.

    python -m examples.recovery_ablation [--seeds 3]

A small network for handwritten digits loses most of its channels, and is trained on their labels
for a few epochs in each variant. Every figure is the mean over the seeds of top-1 on the test
pictures, on which no choice is made; it runs on one core in a minute.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import trimtab
from examples.pictures import Pictures, context, seeded_network, top1
from trimtab.core.dataset import Dataset
from trimtab.core.text import table
from trimtab.models import Training, digits_arrays, digits_cnn, shifted, train
from trimtab.passes import Finetune, PruneChannels

RATES = (1e-3, 1e-2, 1e-1, 1.0)
NORMS = ("frozen", "re-estimated", "trained")
DROPOUTS = (0.0, 0.2, 0.5)
#: Rate and norm with which dropout is varied.
RATE, NORM = 1e-1, "trained"


@dataclass(frozen=True)
class Variant:
    """Configuration of a training.

    Attributes:
        rate: highest learning rate.
        norm: treatment of the statistics of BatchNormalization.
        dropout: share of the features that training drops before the classifier.
    """

    rate: float
    norm: str
    dropout: float


def variants() -> Iterator[Variant]:
    """Yield all rates with all norms, then all dropouts with one of each."""
    yield from (Variant(rate, norm, 0.0) for rate, norm in itertools.product(RATES, NORMS))
    yield from (Variant(RATE, NORM, dropout) for dropout in DROPOUTS[1:])


def digits() -> Pictures:
    """Load the digits at 8 x 8."""
    images, labels = digits_arrays("train")
    test, truth = digits_arrays("test")
    return Pictures(
        Dataset.of_arrays({"input": images}, labels),
        Dataset.of_arrays({"input": test}, truth),
        classes=10,
    )


def original(epochs: int, seed: int) -> trimtab.Model:
    """Train the network; export it with its BatchNormalization and Dropout."""
    images, labels = digits_arrays("train")
    network = seeded_network(lambda: digits_cnn(dropout=0.2), seed)
    recipe = Training(epochs=epochs, batch_size=64, learning_rate=0.1, seed=seed, threads=1)
    train(network, images, labels, recipe, augment=shifted)
    return trimtab.export(network, name="digits", trainable=True)


def run_seed(
    pictures: Pictures, chosen: list[Variant], *, epochs: int, finetune: float, seed: int
) -> tuple[float, float, list[float]]:
    """Return top-1 of the original, of the pruned network, and after each variant of training."""
    full = original(epochs, seed)
    ctx = context(pictures, seed)
    pruned = PruneChannels(macs=0.25, importance="l1", repair="none")(full, ctx)
    found = []
    for variant in chosen:
        fields: dict[str, Any] = {"batch_norm": variant.norm, "dropout": variant.dropout}
        train_pruned = Finetune(
            loss=("ce",), optimizer="sgd", learning_rate=variant.rate, epochs=finetune, **fields
        )
        found.append(top1(train_pruned(pruned, ctx), pictures))
    return top1(full, pictures), top1(pruned, pictures), found


def main(argv: list[str] | None = None) -> dict[Variant, float]:
    """Train all variants and print the tables; return the mean top-1 of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6, help="of the original")
    parser.add_argument(
        "--finetune", "--recover", type=float, default=2, help="epochs after pruning"
    )
    args = parser.parse_args(argv)
    pictures, chosen = digits(), list(variants())
    runs = [
        run_seed(pictures, chosen, epochs=args.epochs, finetune=args.finetune, seed=seed)
        for seed in range(args.seeds)
    ]
    before, cut = (float(np.mean([run[i] for run in runs])) for i in (0, 1))
    means = np.mean([run[2] for run in runs], axis=0).tolist()
    found: dict[Variant, float] = dict(zip(chosen, means, strict=True))
    print(f"original {before:.4f}, pruned {cut:.4f}, mean of {args.seeds} seeds\n")
    rows = [
        [f"{rate:g}", *(f"{found[Variant(rate, norm, 0.0)]:.4f}" for norm in NORMS)]
        for rate in RATES
    ]
    print("\n".join(table(["learning rate", *NORMS], rows)))
    rows = [[f"{d:g}", f"{found[Variant(RATE, NORM, d)]:.4f}"] for d in DROPOUTS]
    print("\n" + "\n".join(table(["dropout", f"{NORM}, {RATE:g}"], rows)))
    return found


if __name__ == "__main__":
    main()
