"""Measured speed-up of resnet56 with about 30% fewer multiplications, on one thread.

Channels are kept in blocks, whole residual branches may go, and widths are chosen on a measured
table of layers. The latency option is searched until --macs of the multiplications are left. Of the
blocks (by default the pass's own choice, and one, two and four blocks of the target's kernels) the
one of the least predicted latency is measured. Predicted and measured latency are printed.

    python benchmarks/prune/speed_up.py [--macs 0.7] [--blocks N ...] [--seconds 30]

Data: the folder that TRIMTAB_SHARED names, else `shared` beside the checkout.
"""

from __future__ import annotations

import argparse

from common.data import cifar, network, top1

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import Target
from trimtab.passes.pruning.channels import PruneChannels
from trimtab.runtime_bench.bench.clock import BenchClock


def search(model: Model, ctx: Context, block: int | None, args: argparse.Namespace) -> Model:
    """Try a few latencies and return the model whose multiplications are nearest to --macs."""
    low, high = 0.3, 1.0
    latency, best, distance = args.macs, model, 1.0
    for _ in range(6):
        options = {"latency": latency, "block": block, "branches": True, "samples": args.images}
        after = PruneChannels(**options)(model, ctx)
        left = macs_left(after)
        if abs(left - args.macs) < distance:
            best, distance = after, abs(left - args.macs)
        if distance <= args.within:
            break
        low, high = (latency, high) if left < args.macs else (low, latency)
        latency = (low + high) / 2
    print(
        f"block {block or 'of its own choice'}: {macs_left(best):.3f} of the multiplications, "
        f"{predicted(best):.3f} of the latency predicted",
        flush=True,
    )
    return best


def macs_left(after: Model) -> float:
    """Return the share of the multiplications that is left."""
    old, new = after.lineage[-1].notes["macs"]
    return float(new / old)


def predicted(after: Model) -> float:
    """Return the share of the latency that is left by the table."""
    return float(after.lineage[-1].notes["latency_ratio"]["predicted"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--images", type=int, default=512, help="of the training split")
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--macs", type=float, default=0.7, help="share that stays")
    parser.add_argument("--within", type=float, default=0.015, help="of that share")
    parser.add_argument("--blocks", nargs="+", type=int, help="channels are kept in multiples")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the last comparison")
    args = parser.parse_args()
    model, train = network(args.network), cifar("train", args.images)
    clock, target = BenchClock(), Target.detect(args.threads)
    ctx = Context(target=target, data=train, clock=clock)
    own = target.float_block
    found = [search(model, ctx, b, args) for b in args.blocks or (None, own, 2 * own, 4 * own)]
    after = min(found, key=predicted)
    ratio = clock.compare(model, after, random_feeds(model), SessionConfig.of(target), args.seconds)
    unseen = cifar("eval", args.eval)
    print(
        f"FIGURE speedup={ratio.value:.3f} low={ratio.low:.3f} high={ratio.high:.3f} "
        f"predicted={1 / predicted(after):.3f} macs={macs_left(after):.3f} "
        f"top1={top1(after, unseen):.4f} float={top1(model, unseen):.4f}"
    )


if __name__ == "__main__":
    main()
