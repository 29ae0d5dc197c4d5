"""Quantize to int8 with the types that the target's kernels want.

--mode static calibrates ranges on --data; --mode dynamic computes them at run time and needs no
data. Without --mode it is static where there are data, else dynamic. The model is simplified first.

With --max-drop, static leaves those layers float that cost more on held-out calibration data; with
--eval the result is judged once more on data of its own, and not written where it loses more.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.core.model import Model
    from trimtab.passes.base import Pass

SUMMARY = "int8, static or dynamic"
MODES = {"static": "quantize-static", "dynamic": "quantize-dynamic"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command: those of both passes."""
    from trimtab.commands.one_pass import add_fields, add_model_and_output, add_surroundings
    from trimtab.passes import find

    add_model_and_output(parser)
    parser.add_argument("--mode", choices=list(MODES), help="default: static with --data")
    static, dynamic = (find(name) for name in MODES.values())
    add_fields(parser, static)
    add_fields(parser, dynamic, *static.fields())
    parser.add_argument("--eval", metavar="DATA", help="evaluate against the original on these")
    add_surroundings(parser)


def execute(args: argparse.Namespace) -> int:
    """Quantize, evaluate where asked, write."""
    from trimtab.commands.one_pass import apply, given_fields
    from trimtab.core.errors import OptionError, nearest
    from trimtab.passes import find

    mode = args.mode or ("static" if args.data else "dynamic")
    kind = find(MODES[mode])
    given = {n: v for name in MODES.values() for n, v in given_fields(args, find(name)).items()}
    if mode == "dynamic":
        for name in ("data", "max_drop", "metric"):  # read below, by the evaluation
            given.pop(name, None)
        if args.max_drop and not args.eval:
            raise OptionError("--max-drop needs --eval with --mode dynamic")
    for name in given:
        if name not in kind.fields():
            raise OptionError(
                f"--{name.replace('_', '-')} has no meaning with --mode {mode}",
                hint=nearest(name, kind.fields()),
            )
    steps: list[Pass] = [find("simplify")(), kind.from_json(given)]
    return apply(steps, args, accept=lambda before, after: _accept(before, after, args))


def _accept(before: Model, after: Model, args: argparse.Namespace) -> None:
    """Refuse a result that loses more than was allowed."""
    from trimtab.core.dataset import Dataset
    from trimtab.core.errors import BudgetError
    from trimtab.core.fields import convert
    from trimtab.core.metric import evaluate
    from trimtab.core.progress import Stderr
    from trimtab.report.lines import quality_line

    if not args.eval:
        return
    limit = convert(float | None, args.max_drop, where="--max-drop")
    data = Dataset.open(args.eval)
    base, mine = (
        evaluate(m, data, args.metric, reference=before, progress=Stderr()) for m in (before, after)
    )
    drop, error = mine.drop_from(base)
    spread = "" if error is None else f" +- {error:.4f} (paired)"
    print(f"{quality_line(mine)}; original {base.value:.4f}; drop {drop:+.4f}{spread}")  # noqa: T201
    if limit is not None and drop > limit:
        raise BudgetError(
            f"the result loses {drop:.4f}, {limit:g} is allowed; nothing was written",
            hint="Try other --ranges, more data, or `trimtab optimize`",
        )
