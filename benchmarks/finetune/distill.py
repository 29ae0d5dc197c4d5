"""resnet20 from random weights: with a teacher and with labels only, for the same steps.

    python benchmarks/finetune/distill.py [--steps 1500] [--threads 2] [--seeds 0 1 2]
        [--out FOLDER]

Goal: better with the teacher by more than the spread of seeds. Both students of a seed start from
the same weights and see the same images in the same order. Weights are chosen by a part of the
training images; no choice is made on the evaluation images. With --out, a stopped run resumes from
its last checkpoint.
"""

from __future__ import annotations

import statistics
from typing import Any

from common.data import cifar, network, top1
from runs import by_seed, fields_of, parser_of, spread, train

import trimtab
from trimtab.core.model import Model
from trimtab.models import build
from trimtab.models.training import seeded

LOSSES = {"labels": ("ce",), "teacher": ("ce:0.1", "kd:0.9")}


def student(name: str, seed: int) -> Model:
    """Export the network with random weights and its BatchNormalization."""
    with seeded(seed):
        module = build(name)
    return trimtab.export(module, name=f"{name}, untrained", trainable=True)


def main() -> None:
    parser = parser_of(__doc__, "resnet20")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--teacher", default="resnet56")
    args = parser.parse_args()
    teacher, data, unseen = (
        network(args.teacher),
        cifar("train", args.train),
        cifar("eval", args.eval),
    )
    best = top1(teacher, unseen)
    print(f"teacher {best:.4f}", flush=True)

    def learn(loss: str, seed: int) -> Model:
        fields: dict[str, Any] = fields_of(
            args,
            loss=LOSSES[loss],
            steps=args.steps,
            threads=args.threads,
            batch=128,
            optimizer="sgd",
            learning_rate=0.1,
            weight_decay=5e-4,
            batch_norm="trained",
            match="order",  # the teachers' files have other names of outputs
            augment="both",
            evaluate_every=max(args.steps // 5, 1),
            validation=0.02,
        )
        if args.out is not None:
            file = args.out / f"{loss}-{seed}.checkpoint"
            fields |= {"checkpoint": str(file), "checkpoint_minutes": 2, "resume": True}
        return train(student(args.network, seed), data, seed, teacher=teacher, fields=fields)

    found = {
        loss: by_seed(args, loss, unseen, lambda seed, loss=loss: learn(loss, seed))  # type: ignore[misc]
        for loss in LOSSES
    }
    gain = statistics.fmean(found["teacher"]) - statistics.fmean(found["labels"])
    listed = " ".join(f"{loss}={spread(values)}" for loss, values in found.items())
    print(f"FIGURE teacher_itself={best:.4f} {listed} gain={gain:.4f}")


if __name__ == "__main__":
    main()
