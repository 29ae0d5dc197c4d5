"""resnet20 from random weights: with a teacher against labels only, the same steps for both.

    python benchmarks/distill.py --steps 2000 [--seeds 3] [--teacher resnet56]

The student is exported with its BatchNormalization, which trains with the batches.
"""

from __future__ import annotations

import argparse

import torch
from recover_data import cifar, network, top1

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.progress import Stderr
from trimtab.models import build
from trimtab.passes import Recover


def student(name: str, seed: int) -> Model:
    torch.manual_seed(seed)
    program = torch.onnx.export(
        build(name).eval(),
        (torch.randn(2, 3, 32, 32),),
        dynamo=True,
        optimize=False,
        verbose=False,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    return Model.from_proto(program.model_proto, f"{name}, untrained")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--train", type=int, default=50_000, help="training images")
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    teacher, train, unseen = (
        network(args.teacher),
        cifar("train", args.train),
        cifar("eval", args.eval),
    )
    print(f"teacher {top1(teacher, unseen):.4f}", flush=True)
    for seed in range(args.seeds):
        for loss in (("ce",), ("ce:0.1", "kd:0.9")):
            how = Recover(
                teacher=teacher,
                loss=loss,
                steps=args.steps,
                batch=args.batch,
                optimizer="sgd",
                learning_rate=0.1,
                weight_decay=5e-4,
                batch_norm="trained",
                augment="both",
                evaluate_every=max(args.steps // 10, 1),
                validation=0.02,
            )
            after = how(
                student(args.network, seed), Context(data=train, progress=Stderr(), seed=seed)
            )
            print(f"seed {seed} {' + '.join(loss)}: {top1(after, unseen):.4f}", flush=True)


if __name__ == "__main__":
    main()
