"""resnet56 at half its multiplications before any training: top-1 of ours, plain L1, and onnxsim.

All get the same calibration images of the training split; the evaluation images choose nothing.
Ours compares all layers by the error that their readers cannot compensate, and refits the readers.

    python benchmarks/prune/quality.py [--images 512] [--eval 5000] [--block 1] [--seeds 1]

Data: the folder that TRIMTAB_SHARED names, else `shared` beside the checkout.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

from common.data import cifar, network, top1

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes.pruning.channels import PruneChannels


def onnxsim_structured(model: Model, data: Dataset, share: float) -> Model:
    """Prune with onnxsim, calibrated; its refit does not change convolutions."""
    import onnxsim

    images = [dict(b.feeds) for b in data.take(128).sized(64)]
    bare = dataclasses.replace(model, lineage=()).to_proto()
    pruned = onnxsim.apply_structured_wanda_pruning(bare, images, sparsity=share)
    return Model.from_proto(pruned, "onnxsim")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--images", type=int, default=512, help="of the training split")
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--macs", type=float, default=0.5, help="share that stays")
    parser.add_argument("--block", type=int, default=1, help="channels are kept in multiples")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    model, train = network(args.network), cifar("train", args.images)
    unseen = cifar("eval", args.eval)
    ctx = Context(target=Target.detect(1), data=train)
    figures = {"float": top1(model, unseen)}
    options = {"macs": args.macs, "block": args.block}
    started = time.perf_counter()
    ours = PruneChannels(**options, samples=args.images)(model, ctx)
    seconds = time.perf_counter() - started
    figures["ours"] = top1(ours, unseen)
    notes = ours.lineage[-1].notes
    print(
        f"float {figures['float']:.4f}, ours {figures['ours']:.4f} in {seconds:.0f} s", flush=True
    )
    if args.peers:
        plain = PruneChannels(**options, importance="l1", scope="local", repair="none")(model, ctx)
        figures["l1"] = top1(plain, unseen)
        figures["onnxsim"] = top1(onnxsim_structured(model, train, args.macs), unseen)
    left = notes["macs"][1] / notes["macs"][0]
    text = " ".join(f"{name}={value:.4f}" for name, value in figures.items())
    print(f"FIGURE {text} macs={left:.3f} oracle={notes['oracle']:.1e}")


if __name__ == "__main__":
    main()
