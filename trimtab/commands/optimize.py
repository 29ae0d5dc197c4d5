"""Find the best model that satisfies your constraints, and prove it.

Tries the passes in stages, drops candidates that lose too much, measures the rest interleaved with
the original, and confirms the best on data and in a run that nothing was chosen on. Writes
DIR/model.onnx, recipe.yaml, budgets.yaml, frontier/, result.json and, with the extra `report`,
report.html. Exit code 1 where no candidate satisfies the constraints; result.json then names the
constraints that bind, and by how much.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.core.context import Context
    from trimtab.runtime_bench.bench.bench import Bench

    from ..search.reporting.outcome import Outcome
    from ..search.result import Constraints
    from ..search.time_budget import TimeBudget

SUMMARY = "find the best model that satisfies your constraints"
EXAMPLE = "trimtab optimize float.onnx -o out --data calib.npz --eval eval.npz --max-drop 1%"
_OPTIONS = (
    ("--eval", "DATA", "evaluation data (default: a split of --data)"),
    ("--metric", "NAME", "metric of quality: top1, ..., or module:callable"),
    ("--weights", "FILE", "state dict of module:callable"),
    ("--min-speedup", "X", "smallest speed-up over the original"),
    ("--max-latency", "p95=5ms", "largest latency"),
    ("--max-size", "4MB", "largest file"),
    ("--max-rss", "200MB", "largest peak memory above the runtime's own"),
    ("--goal", "GOAL", "latency (default), throughput, size, macs or bytes moved"),
    ("--batch", "N", "with --goal throughput: rows of a run (default 1)"),
    ("--concurrency", "N", "with --goal throughput: callers at once (default: all CPUs)"),
    ("--train", "20m", "time for training (default: no training)"),
    ("--time", "10m", "time limit of the whole search"),
    ("--trials", "N", "largest number of candidates"),
    ("--passes", "A,B", "names of the passes that may be used (default: all)"),
    ("--target", "NAME", "machine to run on: auto or a preset (default auto)"),
    ("--threads", "N", "intra-op threads of the target"),
    ("--on", "DEVICE,...", "measure there: ssh://user@host, or names of `device`"),
    (
        "--eval-on",
        "DEVICE",
        "evaluate quality on a fleet, dask://...?device=, or in a browser: web",
    ),
    ("--cache", "DIR", "folder of the cache (default TRIMTAB_CACHE or ~/.cache/trimtab)"),
    ("--split", "20/40/40", "shares that calibrate, choose, confirm; with --eval the last two"),
    ("--quiet-for", "5m", "wait so long for a quiet minute before measuring"),
    ("--seed", "N", "random seed (default 0)"),
)
_FLAGS = (
    ("--no-cache", "neither read nor write the cache"),
    ("--same-data", "accept evaluation data that contain calibration data; the result is marked"),
    ("--force", "let an output replace the input"),
    ("--dry-run", "only show the plan and its time"),
    ("--mlflow", "log the result to mlflow"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("source", metavar="SOURCE", help=".onnx file, or module:callable")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder to write")
    text = "calibration and training data"
    parser.add_argument("--data", required=True, metavar="DATA", help=text)
    text = "largest loss of the metric: 0.01 (default) or 1%%; of several: map=0.01; repeatable"
    parser.add_argument("--max-drop", metavar="X", action="append", help=text)
    text = "execution providers to choose from: auto, or cpu,openvino (default cpu)"
    parser.add_argument("--provider", metavar="P,P", help=text)
    for option, metavar, text in _OPTIONS:
        parser.add_argument(option, metavar=metavar, help=text)
    for flag, text in _FLAGS:
        parser.add_argument(flag, action="store_true", help=text)


def execute(args: argparse.Namespace) -> int:
    """Search, print, write."""
    from trimtab.core.errors import BudgetError
    from trimtab.core.progress import Stderr

    from ..report.page import write_report
    from ..search.reporting.folder import check_output, save_outcome
    from ..search.reporting.mlflow_log import log_outcome, need_mlflow
    from ..search.reporting.summary import outcome_lines

    args.started = time.monotonic()
    check_output(args.output, args.source, force=args.force)
    if args.mlflow:
        need_mlflow()
    outcome = _search(args)
    if outcome is None:
        return 0
    written = save_outcome(outcome, args.output)
    result = written[-1]
    written += write_report(result, Stderr())
    print("\n".join(outcome_lines(outcome)))  # noqa: T201
    print("wrote " + ", ".join(str(p) for p in written))  # noqa: T201
    print(outcome.advice)  # noqa: T201
    if args.mlflow:
        log_outcome(outcome, args.output)
    if outcome.chosen is None:
        hint = f"{result} names the constraints that bind"
        raise BudgetError("no candidate satisfies the constraints", hint=hint)
    return 0


def _providers(args: argparse.Namespace) -> list[str]:
    """Return the names of the providers to choose from; none where the option is not given."""
    from trimtab.core.errors import OptionError

    if args.provider is None:
        return []
    if args.on or args.target or args.eval_on:
        raise OptionError(
            "chooses between engines of this machine",
            where="--provider",
            hint="Drop --on, --target and --eval-on",
        )
    names: list[str] = args.provider.split(",")
    if ":" in args.provider or "=" in args.provider:
        raise OptionError(
            "takes names alone",
            where=f"--provider {args.provider}",
            hint="Options of a provider are for `bench`: --provider openvino:precision=bf16",
        )
    return names


def _search(args: argparse.Namespace) -> Outcome | None:
    """Return the outcome; None where only the plan was asked for."""
    from dataclasses import replace

    from trimtab.core.dataset import Dataset
    from trimtab.core.errors import OptionError
    from trimtab.core.progress import Stderr
    from trimtab.runtime_bench.open import bench_on_all, runner_on

    from ..open_model import open_model
    from ..search.optimize import optimize
    from ..search.reporting.live import watching
    from ..search.splits import read_shares
    from ..search.start.inputs import first_feeds

    constraints, budget, providers = _constraints(args), _budget(args), _providers(args)
    split = read_shares(args.split) if args.split else None
    quiet_for = _quiet_for(args, budget)
    if args.on and args.target:
        raise OptionError("--on sets the target itself", where="--target", hint="Omit it, or --on")
    data = Dataset.open(args.data)
    evaluation = Dataset.open(args.eval) if args.eval else None
    model = open_model(args.source, weights=args.weights, example=lambda: first_feeds(data))
    passes = args.passes.split(",") if args.passes else None
    with bench_on_all(args.on, Stderr()) as bench, runner_on(_judge(args)) as runner:
        ctx = replace(_context(args, bench), runner=runner)
        if args.dry_run:
            _show_plan(args, model, data, evaluation, constraints, budget, split, ctx)
            return None
        with watching(constraints.goal) as (progress, watch):
            return optimize(
                model,
                data,
                eval_data=evaluation,
                metric=args.metric,
                constraints=constraints,
                passes=passes,
                ctx=replace(ctx, progress=progress),
                budget=budget,
                cache=False if args.no_cache else args.cache or True,
                same_data=args.same_data,
                watch=watch,
                look_into=True,
                bench=bench,
                split=split,
                quiet_for=quiet_for,
                providers=providers,
            )


def _show_plan(  # noqa: PLR0917 - what `_search` has opened
    args: argparse.Namespace,
    model: Any,
    data: Any,
    evaluation: Any,
    constraints: Constraints,
    budget: TimeBudget,
    split: Sequence[float] | None,
    ctx: Context,
) -> None:
    """Print what would be tried, and about how long it takes."""
    from ..search.start.estimate import estimate_lines
    from ..search.start.preparing import Question, prepared
    from ..search.steps.engines import read_engines

    passes = args.passes.split(",") if args.passes else None
    question = Question(
        model,
        data,
        evaluation,
        args.metric,
        constraints,
        passes,
        None,
        budget,
        split,
        args.same_data,
        read_engines(_providers(args)),
    )
    start = prepared(question, ctx, timed=True, measures=True)
    print("\n".join([*start.told, "", *estimate_lines(start.lines, budget)]))  # noqa: T201


def _quiet_for(args: argparse.Namespace, budget: TimeBudget) -> float:
    """Return the seconds to wait for a quiet machine."""
    from trimtab.core.errors import OptionError
    from trimtab.core.units import duration

    seconds = duration(args.quiet_for, "--quiet-for") if args.quiet_for else 0.0
    if budget.seconds is not None and seconds >= budget.seconds:
        raise OptionError(
            f"waiting {seconds:g} s for a quiet machine does not fit into {budget.seconds:g} s",
            where="--quiet-for and --time",
            hint="Give --time more, or --quiet-for less",
        )
    return seconds


def _judge(args: argparse.Namespace) -> str | None:
    """Return the device that evaluates: the browser where it measures, else the one of the user."""
    from trimtab.runtime_bench.devices.web_browser import is_web

    measured_on = args.on or ""
    return args.eval_on or (measured_on if is_web(measured_on) and "," not in measured_on else None)


def _context(args: argparse.Namespace, bench: Bench) -> Context:
    from trimtab.core.context import Context
    from trimtab.core.fields import convert
    from trimtab.core.progress import Stderr
    from trimtab.core.target import Target
    from trimtab.core.units import count
    from trimtab.runtime_bench.bench.clock import BenchClock

    threads = count(args.threads, "--threads")
    if args.goal == "throughput":
        threads = threads or 1  # callers keep the other CPUs busy
    return Context(
        target=Target.named(args.target, threads) if args.target else bench.target(threads),
        progress=Stderr(),
        seed=convert(int, args.seed or 0, where="--seed"),
        clock=BenchClock(bench=bench),
    )


def _budget(args: argparse.Namespace) -> TimeBudget:
    from trimtab.core.units import count, duration

    from ..search.time_budget import TimeBudget

    return TimeBudget(
        seconds=duration(args.time, "--time") if args.time else None,
        train_seconds=duration(args.train, "--train") if args.train else None,
        trials=count(args.trials, "--trials"),
        started=args.started,
    )


def _constraints(args: argparse.Namespace) -> Constraints:
    from trimtab.core.units import count, drops

    from ..search.result import Constraints

    names = ("min_speedup", "max_latency", "max_size", "max_rss", "goal")
    given: dict[str, Any] = {n: v for n in names if (v := getattr(args, n)) is not None}
    numbers = {
        "batch": count(args.batch, "--batch"),
        "callers": count(args.concurrency, "--concurrency"),
    }
    given |= {name: number for name, number in numbers.items() if number is not None}
    if args.max_drop:
        given["max_drop"] = drops(args.max_drop)
    return Constraints.of(given)
