"""Searches beside other work: is the same candidate written as in a search without it?

    python benchmarks/optimize/noise.py [--models resnet20 ...] [--busy 1 2 4 bursty]
        [--time 60] [--first 240] [--rows 371] [--results FILE] [--judge]

For each model a first search with `--first` seconds and no work of ours beside it fills a cache.
The reference is one with `--time` seconds, without work as well; then comes one as long for each
kind of work: as many processes that never rest, or one for each CPU that works and rests at random
(bursty). Models are taken from the cache, measured times never are. `--judge` then measures what
was written against the reference, for each pair that differs, `--judging` seconds: a search counts
where it wrote the reference's candidate or one within 5% of its speed. Each search is a line of the
results, so that an interrupted run goes on where it was; the load of the machine before our own
work is in it.

Models: resnet20, resnet56 and mobilenet_v2 on CIFAR-10, keypoint on its labelled rows, and
ppocr_cls on drawn lines judged by fidelity, all of the folder that TRIMTAB_SHARED names, else
`shared` beside the checkout.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common.data import REAL, cifar, folder, real
from common.journal import done, note

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.progress import Stderr
from trimtab.core.target import Target
from trimtab.runtime_bench.bench.clock import BenchClock
from trimtab.runtime_bench.measure.compare import compare
from trimtab.search.optimize import optimize
from trimtab.search.reporting.outcome import Outcome
from trimtab.search.time_budget import TimeBudget

MODELS = ("resnet20", "resnet56", "mobilenet_v2", "keypoint", "ppocr_cls")
#: The search that fills the cache, the reference, and kinds of work beside the others.
FIRST, REFERENCE, KINDS = "first", "0", ("1", "2", "4", "bursty")
#: Speed that counts as the reference's.
CLOSE = 0.95
SPIN = "while True: pass"
BURSTS = (
    "import random, time\n"
    "while True:\n"
    "    end = time.monotonic() + random.uniform(0.2, 2)\n"
    "    while time.monotonic() < end: pass\n"
    "    time.sleep(random.uniform(0.2, 3))\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--busy", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--time", type=float, default=60.0, help="seconds of a search")
    parser.add_argument("--first", type=float, default=240.0, help="seconds of the first search")
    parser.add_argument("--rows", type=int, default=371)
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--results", type=Path, default=Path("out/optimize_noise.jsonl"))
    parser.add_argument("--judge", action="store_true", help="measure what was written")
    parser.add_argument("--judging", type=float, default=40.0, help="seconds for each pair")
    args = parser.parse_args()
    for name in args.models:
        for kind in (FIRST, REFERENCE, *args.busy):
            if not any((e.get("model"), e.get("busy")) == (name, kind) for e in done(args.results)):
                note(args.results, searched(name, kind, args))
    if args.judge:
        judge(args)
    report(done(args.results))


def searched(name: str, kind: str, args: argparse.Namespace) -> dict[str, Any]:
    """Search beside some work, and return what was written and how long it took."""
    model, data = task(name, args.rows)
    seconds, load = args.first if kind == FIRST else args.time, os.getloadavg()[0]
    place = args.results.parent / f"noise-{name}"
    forget_times(place / "cache")
    target = Target.detect(1)
    start = time.monotonic()
    with busy("0" if kind == FIRST else kind):
        outcome = optimize(
            model,
            data,
            constraints={"max_drop": args.max_drop},
            ctx=Context(target=target, progress=Stderr(), clock=BenchClock()),
            budget=TimeBudget(seconds),
            cache=place / "cache",
        )
    took = time.monotonic() - start
    if outcome.chosen is not None:
        outcome.model.save(place / f"{kind}.onnx")
    return told(outcome) | {
        "model": name,
        "busy": kind,
        "load_before": round(load, 1),
        "limit_s": seconds,
        "seconds": round(took, 1),
    }


def told(outcome: Outcome) -> dict[str, Any]:
    """Return what a search wrote, and on which evidence."""
    chosen = outcome.chosen
    again = chosen.confirmation if chosen else None
    int8 = next((r for r in outcome.results if r.name == "int8 static"), None)
    return {
        "chosen": chosen.name if chosen else None,
        "standing": chosen.standing if chosen else None,
        "fresh": [again.ratio, again.low, again.high] if again else None,
        "blocks": again.blocks if again else 0,
        "int8": None if int8 is None or int8.comparison is None else int8.comparison.ratio,
        "tried": [r.name for r in outcome.results],
        "why": list(outcome.why),
        "advice": outcome.advice,
    }


def task(name: str, rows: int) -> tuple[Model, Dataset]:
    """Return a model and its data."""
    if name == "keypoint":
        path = REAL / "keypoint.onnx"
        table = np.loadtxt(path.with_suffix(".csv"), delimiter=",", dtype=np.float32)
        table = table[np.random.default_rng(0).permutation(len(table))[: 4 * rows]]
        model = Model.load(path)
        feeds = {model.inputs[0].name: np.ascontiguousarray(table[:, 1:])}
        return model, Dataset.of_arrays(feeds, table[:, 0].astype(np.int64))
    if name == "ppocr_cls":
        return Model.load(REAL / f"{name}.onnx"), lines(rows)
    return Model.load(folder() / f"{name}.onnx"), cifar("eval", rows)


def lines(rows: int) -> Dataset:
    """Make lines of text, half of them upside down, by the shared data's own script."""
    pictures, _ = real().text_lines(rows, width=192, seed=2)
    pictures[1::2] = pictures[1::2, :, ::-1, ::-1]
    return Dataset.of_arrays({"x": pictures})


def forget_times(cache: Path) -> None:
    """Remove measured latencies from a cache, so that each search measures anew."""
    for value in list(cache.rglob("value.json")):
        if '"log_ratios"' in value.read_text():
            shutil.rmtree(value.parent)


@contextlib.contextmanager
def busy(kind: str) -> Iterator[None]:
    """Run other work meanwhile."""
    bursty = kind == "bursty"
    count = (os.cpu_count() or 1) if bursty else int(kind)
    code = BURSTS if bursty else SPIN
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def judge(args: argparse.Namespace) -> None:
    """Measure each candidate that is not the reference's, against it, in random order."""
    entries = done(args.results)
    quiet = {e["model"]: e for e in entries if e.get("busy") == REFERENCE}
    known = {(e["judged"], e["against"]) for e in entries if "judged" in e}
    pairs = {
        (e["model"], e["chosen"]): e["busy"]
        for e in entries
        if e.get("busy") in KINDS and e["chosen"] not in {None, quiet[e["model"]]["chosen"]}
    }
    order = list(pairs.items())
    random.Random(0).shuffle(order)
    for (name, chosen), kind in order:
        if (chosen, name) in known:
            continue
        place = args.results.parent / f"noise-{name}"
        base, mine = (Model.load(place / f"{k}.onnx") for k in (REFERENCE, kind))
        model, data = task(name, 8)
        feeds = next(iter(data.bind(model).sized(1))).feeds
        found = compare(base, [mine], feeds, max_seconds=args.judging, alpha=0.05)[0]
        note(
            args.results,
            {"judged": chosen, "against": name, "ratio": [found.ratio, found.low, found.high]},
        )


def report(entries: list[dict[str, Any]]) -> None:
    """Print how many searches wrote the reference's candidate, or one as fast."""
    quiet = {e["model"]: e for e in entries if e.get("busy") == REFERENCE}
    speed = {(e["against"], e["judged"]): e["ratio"][0] for e in entries if "judged" in e}
    ran = [e for e in entries if e.get("busy") in KINDS]
    same = [e for e in ran if e["chosen"] == quiet[e["model"]]["chosen"]]
    close = [e for e in ran if speed.get((e["model"], e["chosen"]), 0.0) >= CLOSE]
    floats = [e for e in ran if (e["chosen"] or "float").startswith("float")]
    wrong = [e for e in floats if not quiet[e["model"]]["chosen"].startswith("float")]
    over = [e["seconds"] - e["limit_s"] for e in entries if "chosen" in e]
    print(
        f"FIGURE searches={len(ran)} same={len(same)} within_5_percent={len(close)} "
        f"float={len(floats)} float_where_reference_is_not={len(wrong)} "
        f"not_settled={sum(e['standing'] == 'open' for e in ran)} "
        f"most_over_limit_s={max(over, default=0.0):.1f}"
    )


if __name__ == "__main__":
    main()
