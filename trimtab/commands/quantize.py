"""Quantize to int8 with the types that the target's kernels want.

With --data alone, the best known order of passes for the model's family is applied, each
step kept only where it helps on held-out calibration data; the steps are printed. The result keeps
0.98 of the float model's answers there (--fidelity moves that, --all-int8 gives it up) and is
faster, or the first line says which it could not do; --strict then exits with 1. Without data it is
dynamic int8. --mode names one way: static calibrates ranges on --data; dynamic computes them at
run time and needs no data; weights stores those of matrix products in 4 or 8 bits (--bits,
--method). An option of one way alone selects that way. The model is simplified first.

With --max-drop, layers that cost more on held-out calibration data stay float; with --eval the
result is evaluated once more on other data, and not written where it loses more. --requantize
converts a model of Q/DQ pairs back to float first.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.core.model import Model
    from trimtab.passes.base import Pass

    from ..report.pass_outcome import PassOutcome
    from .one_pass import Headline

SUMMARY = "quantize to int8 or int4: best known order, static, dynamic, or weights only"
EXAMPLE = "trimtab quantize float.onnx -o int8.onnx --data calib.npz"
MODES = {
    "auto": "quantize-auto",
    "static": "quantize-static",
    "dynamic": "quantize-dynamic",
    "weights": "quantize-weights",
}
#: Fields that the evaluation reads where the pass has no such field.
_EVALUATION_FIELDS = frozenset({"data", "max_drop", "metric"})
#: Seconds for which the result is timed against float.
TOLD_SECONDS = 2.0
#: Words of the first line that name what the result could not do.
COULD_NOT = "COULD NOT"
#: Share of the arithmetic in int8 below which missing data are reported.
_LOW_SHARE = 0.5


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command: those of all its passes."""
    from trimtab.passes import find

    from .one_pass import add_context_options, add_fields, add_model_and_output

    add_model_and_output(parser)
    text = "way to quantize (default: auto with --data)"
    parser.add_argument("--mode", choices=list(MODES), help=text)
    known: list[str] = []
    for name in MODES.values():
        kind = find(name)
        add_fields(parser, kind, *known)
        known += kind.fields()
    parser.add_argument("--eval", metavar="DATA", help="data to evaluate on against the original")
    text = "convert a quantized model back to float first"
    parser.add_argument("--requantize", action="store_true", help=text)
    text = "exit with 1 where the result keeps too little or is not faster than float"
    parser.add_argument("--strict", action="store_true", help=text)
    add_context_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Quantize, evaluate where asked, write."""
    from trimtab.core.errors import OptionError, nearest
    from trimtab.core.garbage import return_freed_memory
    from trimtab.passes import find

    from .one_pass import apply, parsed_fields

    fields = {n: v for name in MODES.values() for n, v in parsed_fields(args, find(name)).items()}
    mode = args.mode or _mode_of(fields)
    kind = find(MODES[mode])
    for name in _EVALUATION_FIELDS - set(kind.fields()):
        fields.pop(name, None)
    if args.max_drop and not args.eval and "max_drop" not in kind.fields():
        raise OptionError(f"--max-drop needs --eval with --mode {mode}")
    for name in fields:
        if name not in kind.fields():
            text = f"--{name.replace('_', '-')} has no meaning with --mode {mode}"
            hint = nearest(name, kind.fields())
            if not args.mode and "data" not in fields:
                hint = f"Give --data; without it that mode alone is possible. {hint}"
            raise OptionError(text, hint=hint)
    before: list[Pass] = [find("dequantize")()] if args.requantize else []
    steps = [*before, find("simplify")(), kind.from_json(fields)]

    told: list[Headline] = []
    return_freed_memory()

    def accept(before: Model, after: Model) -> list[str]:
        _accept(before, after, args)
        return _missing_data(after) if mode == "dynamic" and args.mode is None else []

    def headline(outcome: PassOutcome) -> Headline:
        told.append(_promise(outcome, args))
        return told[0]

    code = apply(steps, args, accept=accept, headline=headline)
    return code or int(args.strict and COULD_NOT in told[0].line)


def _mode_of(fields: dict[str, Any]) -> str:
    """Return the first mode that has all the fields that were set."""
    from trimtab.passes import find

    order = ["auto", "static", "weights"] if fields.get("data") else ["dynamic", "weights"]
    wanted = set(fields) - _EVALUATION_FIELDS
    return next((m for m in order if wanted <= set(find(MODES[m]).fields())), order[0])


def _missing_data(after: Model) -> list[str]:
    """Return advice where little runs in int8 without calibration data."""
    share = after.lineage[-1].notes["int8_share"]
    if share >= _LOW_SHARE or not any(node.op_type == "Conv" for node in after.graph):
        return []
    return [
        f"{share:.0%} of the multiply-accumulates run in int8: without data only matrix products "
        "do. Give --data, samples to calibrate on, for the convolutions"
    ]


def _promise(outcome: PassOutcome, args: argparse.Namespace) -> Headline:
    """Return what is kept and how fast it is, where the pass promises something; else nothing."""
    from dataclasses import asdict

    from trimtab.core.batches import fitting
    from trimtab.core.context import Ratio
    from trimtab.core.errors import TrimtabError
    from trimtab.core.ort.session import SessionConfig

    from ..report.lines import promise_line
    from ..search.speed.fingerprint import running_structure
    from .one_pass import Headline, context

    promise = outcome.after.lineage[-1].notes.get("promise")
    if promise is None:
        return Headline()
    if outcome.written is outcome.before:
        told = f"{COULD_NOT} be faster or smaller than float and keep {promise['wanted']:g}"
        return Headline(told, {"promise": promise})

    def faster(ratio: Ratio) -> Headline:
        return Headline(
            promise_line(promise, ratio), {"promise": promise, "speed_up": asdict(ratio)}
        )

    ctx, original = context(args), outcome.before
    try:
        data = ctx.dataset(None, original, purpose="timing")
        feeds = next(iter(fitting(original, data, rows=1))).feeds
        config, clock = SessionConfig.of(ctx.target), ctx.need_clock("timing")
        models = (original, outcome.written)
        if len({running_structure(model, config) for model in models}) == 1:
            return faster(Ratio(1.0, 1.0, 1.0))
        ctx.progress.say("timing the result against float")
        speed_up = clock.compare(original, outcome.written, feeds, config, TOLD_SECONDS)
    except TrimtabError as failure:
        told = f"{promise_line(promise, None)}; not timed: {failure}"
        return Headline(told, {"promise": promise})
    return faster(speed_up)


def _accept(before: Model, after: Model, args: argparse.Namespace) -> None:
    """Refuse a result that loses more than was allowed."""
    from trimtab.core.dataset import Dataset
    from trimtab.core.errors import BudgetError
    from trimtab.core.metric import evaluate, find_limited
    from trimtab.core.progress import Stderr
    from trimtab.core.units import drops

    from ..report.lines import quality_line

    if not args.eval:
        return
    data = Dataset.open(args.eval)
    limits = drops(args.max_drop) if args.max_drop else math.inf
    metric, limit = find_limited(limits, args.metric, data)
    base, mine = (
        evaluate(m, data, metric, reference=before, progress=Stderr()) for m in (before, after)
    )
    for one, other in zip((mine, *mine.others), (base, *base.others), strict=True):
        print(f"{quality_line(one)}; original {other.value:.4f}; {one.drop_text(other)}")  # noqa: T201
    broken = [str(loss) for loss in mine.losses_from(base, limit) if loss.broken]
    if broken:
        raise BudgetError(
            f"the result {'; '.join(broken)}; nothing was written",
            hint="Try other --ranges, more data, or `trimtab optimize`",
        )
