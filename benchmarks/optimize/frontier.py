"""Speed-up that `optimize` reaches at a given drop, beside the best single recipe of other tools.

    python benchmarks/optimize/frontier.py [--networks resnet20 ...] [--drops 0.005 0.01 0.03]
        [--train 20m] [--eval 5000] [--seconds 60] [--cache FOLDER] [--peer NAME=NETWORK=FILE ...]

For each network and drop: a search without training and, with --train, one with it; then its answer
and the models of the other tools are measured together against the float original, in one run on
one thread. A tool counts where its drop on the same unseen data is within the limit; the best of
those is what the last columns tell. Drops of MiniLM are of Spearman on STS-B, a fifth to a third of
the images' (0.002, 0.005, 0.01). One cache serves all searches, so later drops reuse earlier steps;
`seconds` tells what each search took on what was there.

Data: the folder that TRIMTAB_SHARED names, else `shared` beside the checkout.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common.data import cifar
from common.int8 import NETWORKS, PEERS, WAYS, Task, made, peers

from trimtab.core.context import Context
from trimtab.core.metric import evaluate
from trimtab.core.model import Model
from trimtab.core.progress import Stderr
from trimtab.core.target import Target
from trimtab.runtime_bench.bench.clock import BenchClock
from trimtab.runtime_bench.measure.compare import compare
from trimtab.search.optimize import optimize
from trimtab.search.reporting.outcome import Outcome

DROPS = {"minilm": (0.002, 0.005, 0.01)}
IMAGE_DROPS = (0.005, 0.01, 0.03)
#: Recipes of other tools, each at its best known setting.
OTHERS = [way for way in WAYS if not way.startswith("ours")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--drops", nargs="+", type=float, help="instead of each network's own")
    parser.add_argument("--train", help="time of training, as in 20m; none is done without")
    parser.add_argument("--train-images", type=int, default=50_000)
    parser.add_argument("--samples", type=int, default=512, help="that other tools calibrate on")
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--seconds", type=float, default=90.0, help="of the last comparison")
    parser.add_argument("--cache", type=Path, help="folder that is kept; a new one by default")
    parser.add_argument("--peers-python", default="", help="see common/peers.py")
    parser.add_argument("--peer", nargs="*", default=[], metavar="NAME=NETWORK=FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trimtab-frontier-") as scratch:
        cache = args.cache or Path(scratch)
        for name in args.networks:
            one(name, args, cache)


def one(name: str, args: argparse.Namespace, cache: Path) -> None:
    task = Task(name, args.samples, args.eval)
    ways = [*OTHERS, *PEERS] if args.peers_python else OTHERS
    found = {way: told(way, task, args.peers_python) for way in ways}
    tools = {way: model for way, model in found.items() if isinstance(model, Model)}
    tools |= peers(args.peer, name)
    base = evaluate(task.model, task.unseen, task.metric)
    lost = {
        way: evaluate(model, task.unseen, task.metric).drop_from(base)[0]
        for way, model in tools.items()
    }
    for way, drop in lost.items():
        print(f"peer {name} {way}: drop {drop:.4f}", flush=True)
    for drop in args.drops or DROPS.get(name, IMAGE_DROPS):
        for train in (None, args.train) if args.train else (None,):
            outcome = search(task, drop, train, args, cache)
            holding = {way: tools[way] for way in tools if lost[way] <= drop}
            report(task, drop, train, outcome, holding, args.seconds)


def told(way: str, task: Task, peers_python: str) -> Model | str:
    """Return the model of a tool; print why there is none."""
    model = made(way, task, peers_python)
    if isinstance(model, str):
        print(f"missing {task.name} {way}: {model}", flush=True)
    return model


def search(
    task: Task, drop: float, train: str | None, args: argparse.Namespace, cache: Path
) -> Outcome:
    data = task.data if task.is_text or not train else cifar("train", args.train_images)
    ctx = Context(target=Target.detect(threads=1), progress=Stderr(), clock=BenchClock())
    return optimize(
        task.model,
        data,
        eval_data=task.unseen,
        metric=task.metric,
        constraints={"max_drop": drop},
        train=train,
        ctx=ctx,
        cache=cache,
    )


def report(
    task: Task,
    drop: float,
    train: str | None,
    outcome: Outcome,
    tools: dict[str, Model],
    seconds: float,
) -> None:
    """Compare the answer with the tools that keep within the drop, in one run."""
    label = f"optimize.{task.name}.{drop:g}.{'train' if train else 'plain'}"
    chosen = outcome.chosen
    if chosen is None or chosen.model is None or chosen.test is None or not outcome.original.test:
        print(f"FIGURE {label} chosen=nothing seconds={outcome.effort['seconds']}", flush=True)
        return
    ours = compare(task.model, [chosen.model, *tools.values()], task.feeds, max_seconds=seconds)
    best = max(zip(tools, ours[1:], strict=True), key=lambda pair: pair[1].ratio, default=None)
    mine = ours[0]
    lost, error = chosen.test.drop_from(outcome.original.test)
    spread = "" if error is None else f" se={error:.4f}"
    peer = f"best_peer={best[0]} peer_speedup={best[1].ratio:.2f}" if best else "best_peer=none"
    print(
        f"FIGURE {label} speedup={mine.ratio:.2f} low={mine.low:.2f} high={mine.high:.2f} "
        f"drop={lost:.4f}{spread} chosen={chosen.name.replace(' ', '_')} {peer} "
        f"trials={outcome.effort['trials']} seconds={outcome.effort['seconds']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
