"""Quality, size and speed of int8: ours and other tools' best settings, on the same files and data.

    python benchmarks/quantize/quality.py [--networks resnet20 minilm] [--eval 5000] [--seconds 60]
        [--peers-python PYTHON] [--peer NAME=NETWORK=FILE ...] [--keep FOLDER]

Top-1 on the evaluation images, or Spearman on the development pairs of STS-B, with the paired
standard error of the drop; latency as a ratio to float, all models interleaved in one run on one
thread, one image or 128 tokens. Calibration: evenly spaced training images or sentences. `ours` is
`trimtab quantize` with nothing but those. NNCF, Quark and onnxsim run in the Python that
--peers-python names (see peers.py); one that is not installed there has a row that says so. A model
made elsewhere can be given with --peer, and is measured like the others.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from common.int8 import NETWORKS, PEERS, WAYS, Task, made, peers

from trimtab.core.metric import Quality, evaluate
from trimtab.core.model import Model
from trimtab.runtime_bench.measure.compare import compare


def one(name: str, args: argparse.Namespace) -> None:
    task = Task(name, args.samples, args.eval)
    base = evaluate(task.model, task.unseen, task.metric)
    print(f"FIGURE quality.{name}.float {base.metric}={base.value:.4f} n={base.count}", flush=True)
    models: dict[str, Model] = {}
    found = peers(args.peer, name)
    for way in args.ways:
        model = made(way, task, args.peers_python or "", args.keep)
        if isinstance(model, str):
            print(f"missing quality.{name}.{way}: {model}", flush=True)
        else:
            models[way] = model
    models |= found
    drops = {way: quality(task, model, base) for way, model in models.items()}
    ratios = speed(task, models, args.seconds)
    for way, model in models.items():
        size = model.size_bytes / 1e6
        print(f"FIGURE quality.{name}.{way} {drops[way]} {ratios[way]} mb={size:.2f}", flush=True)


def quality(task: Task, model: Model, base: Quality) -> str:
    found = evaluate(model, task.unseen, task.metric)
    drop, error = found.drop_from(base)
    spread = "" if error is None else f" se={error:.4f}"
    return f"{found.metric.split(':')[-1]}={found.value:.4f} drop={drop:.4f}{spread}"


def speed(task: Task, models: dict[str, Model], seconds: float) -> dict[str, str]:
    if seconds <= 0 or not models:
        return dict.fromkeys(models, "ratio=unmeasured")
    found = compare(task.model, list(models.values()), task.feeds, max_seconds=seconds)
    return {
        way: f"ratio={c.ratio:.2f} [{c.low:.2f}, {c.high:.2f}]"
        if math.isfinite(c.ratio)
        else f"ratio=unmeasured ({c.error})"
        for way, c in zip(models, found, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, *PEERS], default=[*WAYS, *PEERS])
    parser.add_argument(
        "--samples", type=int, default=512, help="images or sentences to calibrate on"
    )
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--seconds", type=float, default=120.0, help="of measurement a network")
    parser.add_argument("--peer", nargs="*", default=[], metavar="NAME=NETWORK=FILE")
    parser.add_argument("--peers-python", help="a Python that has nncf, amd-quark and onnxsim")
    parser.add_argument("--keep", type=Path, help="existing folder for the models that are made")
    args = parser.parse_args()
    for name in args.networks:
        one(name, args)


if __name__ == "__main__":
    main()
