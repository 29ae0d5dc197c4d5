"""VGG16 pruned by L1 norm and by threshold, then retrained.

    python -m examples.vgg16_prune [--width 1.0] [--data pictures.npz]

Two kinds of pruning that are easily confused. Pruning by L1 norm removes whole filters, those with
the smallest sum of magnitudes, and the network becomes thinner: smaller and faster. Pruning by
threshold zeroes single weights of small magnitude: the network keeps its shape, and its file
becomes smaller when compressed. Both lose accuracy, which training against the original restores;
the zeros stay zero.
"""

from __future__ import annotations

import argparse

import trimtab
from examples.pictures import (
    Pictures,
    context,
    input_of,
    options,
    pictures_of,
    print_table,
    trained,
)
from trimtab.core.progress import Stderr
from trimtab.models import vgg16
from trimtab.passes import Finetune, PruneChannels, PruneMagnitude, Simplify


def make_models(pictures: Pictures, args: argparse.Namespace) -> dict[str, trimtab.Model]:
    """Make the models, in the order of the table."""
    network = trained(
        lambda: vgg16(pictures.classes, batch_norm=True, cifar=True, width=args.width),
        pictures,
        args,
    )
    # Pruning and training need BatchNormalization; Simplify folds it in the end.
    full = trimtab.export(network, input_of(pictures), name="vgg16", trainable=True)
    ctx = context(pictures, args.seed, Stderr())
    # As in the literature (Li et al., 2017): by norms alone, without repair.
    by_norm = PruneChannels(ratio=args.share, importance="l1", scope="local", repair="none")
    by_threshold = PruneMagnitude(threshold=args.threshold)
    retrain = Finetune(
        teacher=full,
        loss=("ce", "kd:0.5"),
        epochs=args.finetune,
        batch=args.batch,
        learning_rate=2e-3,
        batch_norm="trained",
        dropout=0.0,
        augment="shift",
    )
    thin, sparse = by_norm(full, ctx), by_threshold(full, ctx)
    models = {
        "vgg16": full,
        f"L1 norm, {args.share:.0%} of filters": thin,
        "L1 norm, retrained": retrain(thin, ctx),
        f"below {args.threshold:g}": sparse,
        f"below {args.threshold:g}, retrained": retrain(sparse, ctx),
    }
    return {name: Simplify()(model, ctx) for name, model in models.items()}


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Make the models and print their table; return their top-1 by name."""
    parser = options(__doc__)
    parser.add_argument("--share", type=float, default=0.5, help="share of the filters to remove")
    parser.add_argument("--threshold", type=float, default=0.03, help="smaller weights become 0")
    args = parser.parse_args(argv)
    pictures = pictures_of(args)
    return print_table(make_models(pictures, args), pictures, args.seconds)


if __name__ == "__main__":
    main()
