"""ResNet-50 teaches a smaller student, by its outputs and by its features.

    python -m examples.resnet50_distill [--width 1.0] [--student 0.5] [--data pictures.npz]

Four students, a ResNet-18 each, start from the same random weights and train for the same time: on
labels alone; on labels and the teacher's outputs, softened by a temperature (Hinton et al., 2015);
on labels and the outputs of the teacher's third and fourth stage, through a learned projection
where the widths differ (Romero et al., FitNets, 2015); and on all of these.

Both losses are distances: never below zero, and zero only where student and teacher agree. The mean
of a signed difference is not a distance, since errors of opposite sign cancel and training can
lower it without end; neither is a divergence of numbers that are not probabilities.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import trimtab
from examples.pictures import (
    Pictures,
    context,
    input_of,
    options,
    pictures_of,
    print_table,
    seeded_network,
    trained,
)
from trimtab.core.progress import Stderr
from trimtab.models import resnet18, resnet50
from trimtab.passes import Finetune, Simplify

#: Terms of each student's loss, with weights.
LOSSES: Mapping[str, tuple[str, ...]] = {
    "labels": ("ce",),
    "answers": ("ce:0.1", "kd:0.9"),
    "features": ("ce", "features:0.5"),
    "answers and features": ("ce:0.1", "kd:0.9", "features:0.5"),
}


def make_models(pictures: Pictures, args: argparse.Namespace) -> dict[str, trimtab.Model]:
    """Make the models, in the order of the table."""
    network = trained(lambda: resnet50(pictures.classes, args.width), pictures, args)
    teacher = trimtab.export(network, input_of(pictures), name="resnet50")
    small = seeded_network(lambda: resnet18(pictures.classes, args.width * args.student), args.seed)
    # Random weights need BatchNormalization to learn; other exports fold it.
    student = trimtab.export(small, input_of(pictures), name="resnet18", trainable=True)
    ctx = context(pictures, args.seed, Stderr())
    models = {"resnet50": teacher, "student, untrained": Simplify()(student, ctx)}
    for name, terms in LOSSES.items():
        train_student = Finetune(
            teacher=teacher,
            loss=terms,
            # Outputs of submodules of both networks.
            features=("layer3", "layer4") if "features" in name else (),
            epochs=args.finetune,
            batch=args.batch,
            optimizer="sgd",
            learning_rate=0.05,
            weight_decay=5e-4,
            batch_norm="trained",
            augment="shift",
        )
        models[f"  from {name}"] = Simplify()(train_student(student, ctx), ctx)
    return models


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Make the models and print their table; return their top-1 by name."""
    parser = options(__doc__)
    parser.add_argument(
        "--student", type=float, default=0.5, help="its width, as a part of --width"
    )
    args = parser.parse_args(argv)
    pictures = pictures_of(args)
    return print_table(make_models(pictures, args), pictures, args.seconds)


if __name__ == "__main__":
    main()
