"""Kept importance against measured latency: widths chosen on a measured table, and uniform ratios.

Importance is the sum of the channels' scores (L2 norms of their weights, each group's mean 1) that
is left, as a share. For each wanted latency the table chooses the widths; uniform ratios
take the same part of every group, to the same block of the kernels. All models are measured
interleaved, batch 1. At equal importance the time that uniform ratios need is read off their
frontier, between its points in proportion.

    python benchmarks/prune/latency.py [--networks vgg16 resnet18] [--threads 1 2] [--seconds 240]
"""

from __future__ import annotations

import argparse

import numpy as np
from common.data import own

from trimtab.core.context import Context
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Silent, Stderr
from trimtab.core.target import Target
from trimtab.passes.pruning.channels import PruneChannels
from trimtab.passes.pruning.dependency.graph import build_dependency_graph, prepare
from trimtab.passes.pruning.structured.importance import l2, normalize_by_group, weight_scores
from trimtab.passes.simplify.simplify import Simplify
from trimtab.runtime_bench.bench.bench import Timing
from trimtab.runtime_bench.bench.clock import BenchClock

LATENCIES = (0.8, 0.65, 0.5, 0.35)
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


class Importance:
    """Scores of the whole model's channels, and the share that a pruned one keeps."""

    def __init__(self, model: Model) -> None:
        work = prepare(model.clone())
        graph = build_dependency_graph(work)
        scores = normalize_by_group(graph, weight_scores(graph, l2))
        self.by_name = {g.name: (np.sort(scores[g.units])[::-1], g.width) for g in graph.groups}

    def kept(self, pruned: Model) -> float:
        """Return the share of the importance that is left; the least important went first."""
        left = {g["name"]: g["channels"][1] for g in pruned.lineage[-1].notes["groups"]}
        kept = total = 0.0
        for name, (scores, width) in self.by_name.items():
            count = left.get(name, len(scores) * width) // width
            kept += float(scores[:count].sum()) * width
            total += float(scores.sum()) * width
        return kept / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=["vgg16", "resnet18"])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=240.0, help="of each comparison")
    parser.add_argument("--cache", default="", help="file that keeps timed layers")
    args = parser.parse_args()
    figures = []
    for name in args.networks:
        model = Simplify()(own(name))
        for threads in args.threads:
            gains, error = frontier(model, Target.detect(threads), args.seconds, args.cache)
            text = " ".join(f"{gain:.3f}" for gain in gains)
            print(f"{name}, {threads} threads: time of uniform / ours at equal importance: {text}")
            figures += [
                f"{name}_{threads}_least={min(gains):.3f}",
                f"{name}_{threads}_median={np.median(gains):.3f}",
                f"{name}_{threads}_prediction={error:.3f}",
            ]
    print("FIGURE", *figures)


def frontier(model: Model, target: Target, seconds: float, cache: str) -> tuple[list[float], float]:
    """Return times of uniform over ours at equal importance, and the worst prediction error."""
    clock = BenchClock()
    ctx = Context(target=target, clock=clock, progress=Stderr())
    options = {"importance": "l2", "verify": False}
    ours = []
    for latency in LATENCIES:
        try:
            ours.append(PruneChannels(latency=latency, cache=cache, **options)(model, ctx))
        except OptionError as error:  # below the least, which it names
            print(f"  {error}")
    if not ours:
        raise SystemExit(f"none of the latencies {LATENCIES} can be reached")
    uniform = [PruneChannels(r, scope="local", **options)(model, ctx) for r in RATIOS]
    importance = Importance(model)
    models = [model, *ours, *uniform]
    # Pairs of neighbouring blocks: two threads may run at two speeds by turns, and then the medians
    # of two models are of different turns.
    timing = Timing(SessionConfig.of(target), seconds, in_process=True)
    found = clock.bench.compare(model, models[1:], random_feeds(model), timing, Silent())
    if not all(pair.blocks for pair in found):
        raise SystemExit(f"--seconds {seconds:g} are too few to compare all models once")
    shares = np.array([1.0, *(1 / pair.check().ratio for pair in found)])
    mine = shares[1 : 1 + len(ours)]
    kept = np.array([importance.kept(m) for m in (*ours, *uniform)])
    for kind, share, left in zip(
        ["table"] * len(ours) + ["uniform"] * len(uniform), shares[1:], kept, strict=True
    ):
        print(f"  {kind}: latency {share:.3f}, importance {left:.3f}")
    at = np.append(kept[len(ours) :][::-1], 1.0)
    theirs = np.append(shares[1 + len(ours) :][::-1], 1.0)
    wanted = np.interp(kept[: len(ours)], at, theirs)
    predicted = [m.lineage[-1].notes["latency_ratio"]["predicted"] for m in ours]
    error = float(np.abs(np.array(predicted) / mine - 1).max())
    return [float(gain) for gain in wanted / mine], error


if __name__ == "__main__":
    main()
