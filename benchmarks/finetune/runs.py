"""Runs of the fine-tuning benchmarks: options, one training for each seed, and output."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.data import top1

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.progress import Stderr
from trimtab.passes import Finetune


def parser_of(text: str | None, network: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--network", default=network)
    parser.add_argument("--train", type=int, default=None, help="training images, all by default")
    parser.add_argument("--eval", type=int, default=None, help="evaluation images, all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument(
        "--finetune", "--recover", default="{}", help="further fields of finetune, as JSON"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the models; existing ones are not made again"
    )
    return parser


def cached_model(out: Path | None, name: str, make: Callable[[], Model]) -> Model:
    """Return the model of an earlier run in `out`, else make and save it there."""
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
    """Train a model; report the course on stderr."""
    finetune = Finetune.from_json(dict(fields)).with_fields(teacher=teacher)
    started = time.monotonic()
    after = finetune(model, Context(data=data, progress=Stderr(), seed=seed))
    notes = after.lineage[-1].notes
    figures = {name: notes[name] for name in ("steps", "best_step", "validation") if name in notes}
    say(f"{time.monotonic() - started:.0f} s, {figures}")
    return after


def fields_of(args: argparse.Namespace, **defaults: Any) -> dict[str, Any]:
    """Return the fields of finetune: those of the benchmark, overridden by the options."""
    overrides: dict[str, Any] = json.loads(args.finetune)
    return defaults | overrides


def limit_time(parser: argparse.ArgumentParser, minutes: float) -> None:
    """Add the options of a training with a time limit."""
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--threads", type=int, default=2)


def timed_fields(args: argparse.Namespace, learning_rate: float) -> dict[str, Any]:
    """Return the fields of a training with a time limit, from weights that are good already."""
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
    """Return top-1 on the evaluation images for each seed, and print each."""
    found = []
    for seed in args.seeds:
        model = cached_model(
            args.out, f"{name.replace(' ', '-')}-{seed}", lambda seed=seed: make(seed)
        )  # type: ignore[misc]
        found.append(top1(model, unseen))
        print(f"seed {seed}: {name} {found[-1]:.4f}", flush=True)
    return found


def spread(values: Sequence[float]) -> str:
    """Format the mean and, of several, the standard deviation between seeds."""
    mean = statistics.fmean(values)
    return f"{mean:.4f}" + (f"+-{statistics.stdev(values):.4f}" if len(values) > 1 else "")


def say(text: str) -> None:
    """Print progress on stderr."""
    print(text, file=sys.stderr, flush=True)
