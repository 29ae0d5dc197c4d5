"""Try exact rewrites and session options, and keep those that make the model faster here.

Every rewrite is exact; the clock decides which ones stay. Session options that win are written
to session.json beside the model, for `trimtab.session(model)`, and as ort_config to its metadata.
--dry-run lists the sites and the gains of earlier runs at such sites; it measures nothing.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from trimtab.core.context import Context
    from trimtab.core.model import Model
    from trimtab.passes.tuning.session_options import Options
    from trimtab.passes.tuning.tune import Tune

    from ..report.pass_outcome import PassOutcome

SUMMARY = "try exact rewrites and session options, kept if faster"
EXAMPLE = "trimtab tune float.onnx -o tuned.onnx --time 2m"
#: Share of the time for session options.
SESSION_SHARE = 0.3


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    from trimtab.passes import find

    from .one_pass import add_context_options, add_fields, add_output

    add = parser.add_argument
    add("model", metavar="MODEL", help=".onnx file, or module:callable")
    add_output(parser, required=False)
    text = "sizes to tune for, as input=1x3x224x224; repeat for other inputs and further sizes"
    add("--shape", action="append", default=[], metavar="NAME=SIZES", help=text)
    add("--time", default="90s", help="time limit (default 90s)")
    add("--dry-run", action="store_true", help="only list sites and expected gains")
    add("--no-session", action="store_true", help="leave session options as they are")
    add_fields(parser, find("tune"), "shapes", "seconds")
    add_context_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Tune, write, print the tables."""
    from dataclasses import replace
    from pathlib import Path

    from trimtab.core.errors import OptionError
    from trimtab.core.units import duration

    from ..open_model import open_model
    from ..report.pass_outcome import PassOutcome
    from ..tune_clock import DecidingClock
    from .one_pass import check_output_of, context, write_json

    seconds = duration(args.time, "--time")
    ctx = replace(context(args), clock=DecidingClock())
    share = 1 if args.no_session else 1 - SESSION_SHARE
    step = _step(args, seconds * share, ctx.target.provider)
    if args.dry_run:
        print("\n".join(_sites(open_model(args.model), step, ctx)))  # noqa: T201
        return 0
    if not args.output:
        raise OptionError("there is no output file", where="-o", hint="Give -o OUT.onnx")
    check_output_of(args, args.model)
    model = open_model(args.model)
    after = step(model, ctx)
    options = None if args.no_session else _options(after, step, ctx, seconds * SESSION_SHARE)
    outcome = PassOutcome.of(model, after)
    path = _write(outcome.written, Path(args.output), ctx, options)
    print("\n".join(_lines(outcome, path, options)))  # noqa: T201
    tried = {t.setting: str(t) for t in options.tried} if options else {}
    write_json(outcome, args, path, {"session_options": tried})
    return 0


def _step(args: argparse.Namespace, seconds: float, provider: str) -> Tune:
    from trimtab.core.cache import cache_root
    from trimtab.passes.tuning.tune import Tune

    from .one_pass import parsed_fields

    cache = cache_root() / _cache_name(provider)
    fields = {"cache": str(cache)} | parsed_fields(args, Tune)
    return Tune.from_json(fields | {"shapes": args.shape, "seconds": seconds})


def _cache_name(provider: str) -> str:
    """Return a file name for each model of GPU: what wins on one need not win on another."""
    import re

    from trimtab.core.ort.accelerators import memory_of
    from trimtab.runtime_bench.machine.gpu import nvidia_smi

    name = nvidia_smi(["name"], "0") if memory_of(provider) else None
    return f"forms-{re.sub('[^a-z0-9]+', '-', name[0].lower())}.json" if name else "forms.json"


def _sites(model: Model, step: Tune, ctx: Context) -> list[str]:
    """Return a table of the rules with sites, their number, and their gains in earlier runs."""
    from trimtab.core.text import table
    from trimtab.passes.graph.quantized import first_int8_node
    from trimtab.passes.tuning.cache import Cache
    from trimtab.passes.tuning.candidates import already_optimized, candidates
    from trimtab.passes.tuning.candidates import with_shapes as shaped

    base = shaped(model)
    found, declined = candidates(base, step.rules, contrib=step.contrib)
    sizes, quantized = _sizes(base, step, ctx), first_int8_node(base) is not None
    cache = Cache.open(step.cache, ctx.target, quantized=quantized, sizes=sizes)
    rows = [
        [c.rule, str(len(c.sites)), str(len(c.shapes)), str(cache.known(c.rule, c.shapes) or "-")]
        for c in found
    ]
    sign = already_optimized(base)
    lines = [f"onnxruntime's optimizer wrote this graph: {sign}"] if sign else []
    lines += table(["rule", "sites", "shapes", "gain before"], rows) if rows else ["no sites"]
    if declined:
        lines += ["", "declined:", *(f"  {d.node}: {d.reason}" for d in declined)]
    return lines


def _sizes(model: Model, step: Tune, ctx: Context) -> str:
    """Return the sizes to tune for; empty where a free axis has none: nothing is run then."""
    from trimtab.core.errors import OptionError
    from trimtab.passes.tuning.shapes import cases_of, sizes_text

    try:
        return sizes_text(cases_of(model, step.shapes, ctx, step.seed))
    except OptionError:
        if step.shapes:
            raise
        return ""


def _options(model: Model, step: Tune, ctx: Context, seconds: float) -> Options:
    from trimtab.core.ort.session import SessionConfig
    from trimtab.passes.tuning.session_options import tune_options
    from trimtab.passes.tuning.shapes import cases_of

    from ..tune_clock import SessionClock

    cases = cases_of(model, step.shapes, ctx, step.seed)
    config = SessionConfig.of(ctx.target)
    return tune_options(model, config, cases, SessionClock(ctx.seed), seconds, ctx.progress)


def _write(model: Model, path: Path, ctx: Context, options: Options | None) -> Path:
    from trimtab.core.target import kernel_class
    from trimtab.passes.tuning.session_options import write_options

    from ..session_file import write_session_file

    if options is None or not options.gains:
        return model.save(path)
    saved = write_options(model, options.config).save(path)
    if saved.is_file():  # not a pipe or a device
        write_session_file(saved, options.config, options.gains, kernel_class(ctx.target))
    return saved


def _lines(outcome: PassOutcome, path: Path, options: Options | None) -> list[str]:
    from ..report.lines import pass_lines

    lines = pass_lines(outcome, path)
    if options is not None:
        lines += ["session options:", *_tried(options)]
        kept = f"written to {path.with_name('session.json')} and to the model's metadata"
        lines.append(kept if options.gains else "none is kept, so there is no session.json")
    return lines


def _tried(options: Options) -> list[str]:
    """Return a line for each option that was measured, and one for all with the same reason."""
    alike: dict[str, list[str]] = {}
    for trial in options.tried:
        if trial.ratio is None:
            alike.setdefault(trial.verdict, []).append(trial.setting)
    lines = [f"  {t.setting}: {t}" for t in options.tried if t.ratio is not None]
    return [*lines, *(f"  {verdict}: {', '.join(names)}" for verdict, names in alike.items())]
