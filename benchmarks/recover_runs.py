"""What the recovery benchmarks share: options, one training for each seed, and what is told."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recover_data import top1

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.progress import Stderr
from trimtab.passes import Finetune


def parser_of(text: str | None, network: str) -> argparse.ArgumentParser:
    """A parser with the options that all have."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--network", default=network)
    parser.add_argument("--train", type=int, default=None, help="training images, all by default")
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--recover", default="{}", help="further fields of recover, as JSON")
    parser.add_argument(
        "--out", type=Path, help="folder for the models; those that it holds are not made again"
    )
    return parser


def kept(out: Path | None, name: str, make: Callable[[], Model]) -> Model:
    """The model of an earlier run in `out`, else made now and kept there."""
    if out is None:
        return make()
    path = out / f"{name}.onnx"
    if not path.exists():
        made = make()
        made.save(path)
        return made
    say(f"{name}: found in {out}")
    return Model.load(path)


def train(
    model: Model, data: Dataset, seed: int, *, teacher: Model, fields: Mapping[str, Any]
) -> Model:
    """A model after one training; how it went is told on stderr."""
    how = Finetune.from_json(dict(fields)).with_fields(teacher=teacher)
    started = time.monotonic()
    after = how(model, Context(data=data, progress=Stderr(), seed=seed))
    notes = after.lineage[-1].notes
    told = {name: notes[name] for name in ("steps", "best_step", "validation") if name in notes}
    say(f"{time.monotonic() - started:.0f} s, {told}")
    return after


def fields_of(args: argparse.Namespace, **defaults: Any) -> dict[str, Any]:
    """Fields of recover: those of the benchmark, and over them those that were given."""
    given: dict[str, Any] = json.loads(args.recover)
    return defaults | given


def limit_time(parser: argparse.ArgumentParser, minutes: float) -> None:
    """The options of a training that ends by the clock."""
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--threads", type=int, default=2)


def timed_fields(args: argparse.Namespace, learning_rate: float) -> dict[str, Any]:
    """Fields of such a training, from weights that are good already."""
    return fields_of(
        args,
        time=f"{args.minutes:g}m",
        threads=args.threads,
        batch=64,
        learning_rate=learning_rate,
        augment="both",
        validation=0.02,
        evaluate_every=200,
    )


def by_seed(
    args: argparse.Namespace, name: str, unseen: Dataset, make: Callable[[int], Model]
) -> list[float]:
    """Top-1 on the evaluation images for each seed, told as it comes."""
    found = []
    for seed in args.seeds:
        model = kept(args.out, f"{name.replace(' ', '-')}-{seed}", lambda seed=seed: make(seed))  # type: ignore[misc]
        found.append(top1(model, unseen))
        print(f"seed {seed}: {name} {found[-1]:.4f}", flush=True)
    return found


def spread(values: Sequence[float]) -> str:
    """Mean and, of several, the standard deviation between seeds."""
    mean = statistics.fmean(values)
    return f"{mean:.4f}" + (f"+-{statistics.stdev(values):.4f}" if len(values) > 1 else "")


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
