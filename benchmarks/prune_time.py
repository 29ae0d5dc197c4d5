"""resnet56 with about 30% fewer multiplications: the speed-up that is really measured, one thread.

Channels are kept in blocks of the kernels, whole residual branches may go, and widths are chosen on
a measured table of layers. The latency to ask for is searched until the multiplications that are
left are as many as --macs says. Predicted and measured latency stand side by side.

    python benchmarks/prune_time.py [--macs 0.7] [--block N] [--seconds 30]

Data: the folder that TRIMTAB_SHARED names, else `shared` beside the checkout.
"""

from __future__ import annotations

import argparse

from recover_data import cifar, network, top1

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.session import SessionConfig, random_feeds
from trimtab.core.target import Target
from trimtab.passes.prune_channels import PruneChannels
from trimtab.runtime_bench.clock import BenchClock


def search(model: Model, ctx: Context, args: argparse.Namespace) -> Model:
    """The pruned model whose multiplications come nearest to what is asked, of a few latencies."""
    low, high = 0.3, 1.0
    ask, best, distance = args.macs, model, 1.0
    for _ in range(6):
        options = {"latency": ask, "block": args.block, "branches": True, "samples": args.images}
        after = PruneChannels(**options)(model, ctx)
        notes = after.lineage[-1].notes
        left = notes["macs"][1] / notes["macs"][0]
        print(f"latency={ask:.3f} leaves {left:.3f} of the multiplications", flush=True)
        if abs(left - args.macs) < distance:
            best, distance = after, abs(left - args.macs)
        if distance <= args.within:
            break
        low, high = (ask, high) if left < args.macs else (low, ask)
        ask = (low + high) / 2
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--images", type=int, default=512, help="of the training split")
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--macs", type=float, default=0.7, help="share that shall stay")
    parser.add_argument("--within", type=float, default=0.015, help="of that share")
    parser.add_argument("--block", type=int, default=None, help="by default the target's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the last comparison")
    args = parser.parse_args()
    model, train = network(args.network), cifar("train", args.images)
    clock, target = BenchClock(), Target.detect(args.threads)
    ctx = Context(target=target, data=train, clock=clock)
    after = search(model, ctx, args)
    notes = after.lineage[-1].notes
    feeds = random_feeds(model)
    ratio = clock.compare(model, after, feeds, SessionConfig.of(target), args.seconds)
    unseen = cifar("eval", args.eval)
    predicted = 1 / notes["latency_ratio"]["predicted"]
    print(
        f"FIGURE speedup={ratio.value:.3f} low={ratio.low:.3f} high={ratio.high:.3f} "
        f"predicted={predicted:.3f} macs={notes['macs'][1] / notes['macs'][0]:.3f} "
        f"top1={top1(after, unseen):.4f} float={top1(model, unseen):.4f}"
    )


if __name__ == "__main__":
    main()
