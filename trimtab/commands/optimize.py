"""Find the fastest model that still does its job, and prove it.

Makes candidates, drops those that lose too much, measures the rest interleaved with the original,
confirms the best on data that nothing was chosen on, and writes DIR/model.onnx, DIR/recipe.yaml
and DIR/result.json. Exit code 1 where no candidate holds what was asked.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.result import Constraints

SUMMARY = "find the fastest model that holds your constraints"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("source", metavar="SOURCE", help=".onnx file, or module:callable")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--data", required=True, metavar="DATA", help="calibration data")
    parser.add_argument("--eval", metavar="DATA", help="evaluation data (default: part of --data)")
    parser.add_argument("--metric", metavar="NAME", help="top1, ..., or module:callable")
    parser.add_argument("--weights", metavar="FILE", help="state dict of module:callable")
    parser.add_argument("--max-drop", metavar="X", help="largest loss of the metric (default 0.01)")
    parser.add_argument("--min-speedup", metavar="X", help="least speed-up over the original")
    parser.add_argument("--max-latency", metavar="p95=5ms", help="largest latency")
    parser.add_argument("--max-size", metavar="4MB", help="largest file")
    parser.add_argument("--target", metavar="NAME", help="auto or a preset (default auto)")
    parser.add_argument("--threads", metavar="N", help="intra-op threads of the target")
    parser.add_argument("--time", metavar="30s", help="upper bound for measuring latency")
    parser.add_argument("--seed", metavar="N", help="of splits and measurement order (default 0)")


def execute(args: argparse.Namespace) -> int:
    """Search, print, write."""
    from trimtab.core.context import Context
    from trimtab.core.dataset import Dataset
    from trimtab.core.errors import BudgetError
    from trimtab.core.fields import convert
    from trimtab.core.progress import Stderr
    from trimtab.core.target import Target
    from trimtab.open_model import open_model
    from trimtab.options import duration
    from trimtab.report.lines import outcome_lines
    from trimtab.runtime_bench.clock import BenchClock
    from trimtab.search import check_output, optimize, save_outcome

    check_output(args.output)
    constraints = _constraints(args)
    ctx = Context(
        target=Target.named(
            args.target or "auto", convert(int | None, args.threads, where="--threads")
        ),
        progress=Stderr(),
        seed=convert(int, args.seed or 0, where="--seed"),
        clock=BenchClock(),
    )
    data = Dataset.open(args.data)
    evaluation = Dataset.open(args.eval) if args.eval else None
    model = open_model(args.source, weights=args.weights)
    outcome = optimize(
        model,
        data,
        eval_data=evaluation,
        metric=args.metric,
        constraints=constraints,
        ctx=ctx,
        seconds=duration(args.time) if args.time else None,
    )
    written = save_outcome(outcome, args.output)
    print("\n".join(outcome_lines(outcome)))  # noqa: T201
    print("wrote " + ", ".join(str(p) for p in written))  # noqa: T201
    if outcome.chosen is None:
        raise BudgetError(
            "no candidate holds the constraints", hint=f"{written[-1]} says what binds"
        )
    return 0


def _constraints(args: argparse.Namespace) -> Constraints:
    from trimtab.core.fields import convert
    from trimtab.options import percentile, size
    from trimtab.result import Constraints

    which, limit_s = percentile(args.max_latency) if args.max_latency else (95.0, None)
    drop = convert(float | None, args.max_drop, where="--max-drop")
    return Constraints(
        max_drop=0.01 if drop is None else drop,
        min_speedup=convert(float | None, args.min_speedup, where="--min-speedup"),
        max_latency_ns=None if limit_s is None else limit_s * 1e9,
        percentile=which,
        max_size=size(args.max_size) if args.max_size else None,
    )
