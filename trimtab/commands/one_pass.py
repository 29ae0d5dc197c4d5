"""A pass as a command: the same name, the same fields."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from trimtab.core.context import Context
    from trimtab.core.fields import Field
    from trimtab.core.model import Model
    from trimtab.core.target import Target
    from trimtab.passes.base import Pass

    from ..report.pass_outcome import PassOutcome


#: What the help of a field says to recipes and Python alone: a command has one data.
OF_THE_RUN = (
    r"(?:[;,] that of the run (?:if|where) [a-z ]+| \(default: that of the run\))(?=[.;,]|$)"
)


class Headline(NamedTuple):
    """Words of the first line of a command besides the sizes, and the same as figures."""

    line: str = ""
    figures: Mapping[str, Any] = {}


def command(name: str) -> ModuleType:
    """Return the command that applies the pass of that name."""
    from trimtab.passes import find

    kind = find(name)

    def configure(parser: argparse.ArgumentParser) -> None:
        add_model_and_output(parser)
        add_fields(parser, kind)
        add_context_options(parser)

    def execute(args: argparse.Namespace) -> int:
        return apply([kind.from_json(parsed_fields(args, kind))], args)

    module = ModuleType(name, kind.summary())
    example = f"trimtab {name} float.onnx -o out.onnx"
    example += " --data calib.npz" if "data" in kind.fields() else ""
    parts = {"SUMMARY": kind.summary(), "EXAMPLE": example}
    module.__dict__.update(parts, configure=configure, execute=execute)
    return module


def add_model_and_output(parser: argparse.ArgumentParser) -> None:
    """Add MODEL and -o."""
    parser.add_argument("model", metavar="MODEL", help=".onnx file, or module:callable")
    add_output(parser)
    text = "write the result even where it is larger than the original or the same"
    parser.add_argument("--keep", action="store_true", help=text)


def add_output(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add -o and --force."""
    text = "file to write; a folder gets a file of the model's name, - is standard output"
    parser.add_argument("-o", "--output", required=required, metavar="OUT", help=text)
    parser.add_argument("--force", action="store_true", help="let the output replace the input")
    text = "write what the passes did as JSON, with every layer; - is standard output"
    parser.add_argument("--json", metavar="FILE", help=text)


def check_output_of(args: argparse.Namespace, *sources: str) -> None:
    """Refuse an output that cannot be written, or that is a source, before the work is done."""
    from pathlib import Path

    from trimtab.core.errors import OptionError
    from trimtab.core.files import STDOUT, check_output_file, file_for

    path = file_for(args.output, Path(sources[0]).name)
    check_output_file(path, *(() if args.force else sources))
    if not args.json:
        return
    same = {args.json, str(path)} <= STDOUT or Path(args.json).absolute() == path.absolute()
    if same:
        hint = "Give one of both another file"
        raise OptionError("is the output as well", where=f"--json {args.json}", hint=hint)
    check_output_file(args.json, *sources, parents=True)


def add_context_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a context, except those that the pass has as a field."""
    taken = {option for action in parser._actions for option in action.option_strings}  # noqa: SLF001
    place = parser.add_argument_group("where it runs")
    for option, metavar, text in (
        ("--data", "DATA", "calibration data: .npz, folder, or module:callable"),
        ("--target", "NAME", "machine to run on: auto or a preset (default auto)"),
        ("--threads", "N", "intra-op threads of the target"),
        ("--seed", "N", "random seed (default 0)"),
    ):
        if option not in taken:
            group = parser if option == "--data" else place
            group.add_argument(option, metavar=metavar, help=text)
    if "--shape" not in taken:
        text = "size of an input that the model leaves free, as input=1x3x320x320; repeatable"
        place.add_argument("--shape", action="append", default=[], metavar="NAME=SIZES", help=text)


def add_fields(parser: argparse.ArgumentParser, kind: type[Pass], *leave_out: str) -> None:
    """Add an option for each field of a pass."""
    for field in kind.fields().values():
        if field.name not in leave_out:
            _add_field(parser, field)
    for old, new in kind.renamed.items():
        if new not in leave_out:
            option = f"--{old.replace('_', '-')}"
            parser.add_argument(option, help=argparse.SUPPRESS, default=None)


def _add_field(parser: argparse.ArgumentParser, field: Field) -> None:
    help_ = re.sub(OF_THE_RUN, "", field.help)
    text = f"{help_} {field.default_text}".strip().replace("%", "%%")
    if field.is_flag:
        parser.add_argument(
            field.option, action=argparse.BooleanOptionalAction, default=None, help=text
        )
    else:
        action = "append" if field.is_limits else "store"
        parser.add_argument(field.option, action=action, metavar=field.metavar, help=text)


def parsed_fields(args: argparse.Namespace, kind: type[Pass]) -> dict[str, Any]:
    """Return the fields that were set by options."""
    from trimtab.core.units import drops

    fields = kind.fields()
    values = {name: getattr(args, name, None) for name in (*fields, *kind.renamed)}
    return {
        name: drops(value, fields[name].option)
        if name in fields and fields[name].is_limits
        else value
        for name, value in values.items()
        if value is not None
    }


def context(args: argparse.Namespace) -> Context:
    """Build the context that the options describe."""
    from trimtab.core.context import Context
    from trimtab.core.dataset import Dataset
    from trimtab.core.fields import convert
    from trimtab.core.progress import Stderr
    from trimtab.runtime_bench.bench.clock import BenchClock

    data = getattr(args, "data", None)
    return Context(
        target=target(args),
        data=Dataset.open(data) if data else None,
        progress=Stderr(),
        seed=convert(int, args.seed or 0, where="--seed"),
        clock=BenchClock(),
        shapes=shapes(args),
    )


def shapes(args: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """Return the shapes by input name that --shape gives; the first of each where it repeats."""
    from trimtab.core.units import shape

    return dict(reversed([shape(text) for text in args.shape]))


def target(args: argparse.Namespace) -> Target:
    """Return the target that the options describe."""
    from trimtab.core.target import Target
    from trimtab.core.units import count

    threads = count(args.threads, "--threads")
    return Target.named(args.target or "auto", threads)


def apply(
    steps: Sequence[Pass],
    args: argparse.Namespace,
    *,
    accept: Callable[[Model, Model], Sequence[str]] = lambda before, after: (),  # noqa: ARG005
    headline: Callable[[PassOutcome], Headline] | None = None,
) -> int:
    """Read the model, apply the passes, write the result, and print what happened.

    The arguments have `model`, `output` and the options of the context; `accept` returns further
    lines to print, and raises where the result must not be written; `headline` returns what the
    first line says besides.
    """
    from trimtab.passes.graph.shapes import forget_shapes

    from ..open_model import open_model
    from ..report.outputs_kept import outputs_kept
    from ..report.pass_outcome import PassOutcome
    from .data_options import say

    check_output_of(args, args.model)
    model, ctx = open_model(args.model).fixed(), context(args)
    say(getattr(args, "data", None), model)
    after, (used, held_out) = model, _parts(steps, ctx)
    for step in steps:
        after = _on(step, used)(after, used)
    after = after.fixed()
    forget_shapes(after.ir)
    notes = accept(model, after)
    outcome = PassOutcome.of(model, after, shrinks=steps[-1].shrinks, keep=args.keep)
    judged = "promise" in after.lineage[-1].notes  # by the pass itself
    if (steps[-1].shrinks or steps[-1].drops) and outcome.written is after and not judged:
        outcome = replace(outcome, kept=outputs_kept(model, after, held_out))
    return write(outcome, args, notes, (headline or _kept)(outcome))


def _parts(steps: Sequence[Pass], ctx: Context) -> tuple[Context, Context]:
    """Return the context of the passes, and that of rows that none of them calibrates on.

    Both are the same where none calibrates, or rows are few.
    """
    import numpy as np

    from ..report.outputs_kept import ITEMS

    calibrated = any(step.calibrates for step in steps)
    if not calibrated or ctx.data is None or ctx.data.source.batched or len(ctx.data) < 2 * ITEMS:
        return ctx, ctx
    positions, count = ctx.data.positions, min(ITEMS, len(ctx.data) // 4)
    chosen = ((np.arange(count) + 0.5) * len(positions) / count).astype(int)
    used = ctx.data.select(np.delete(positions, chosen), "all but those held out")
    held_out = ctx.data.select(positions[chosen], "held out")
    return replace(ctx, data=used), replace(ctx, data=held_out)


def _on(step: Pass, ctx: Context) -> Pass:
    """Return a pass whose own data, those of the command, are the rows that it may see."""
    return step if getattr(step, "data", None) is None else step.with_fields(data=ctx.data)


def _kept(outcome: PassOutcome) -> Headline:
    """Return what a pass that promises something keeps; untimed."""
    from ..report.lines import promise_line

    promise = outcome.after.lineage[-1].notes.get("promise")
    if promise is None or outcome.written is outcome.before:
        return Headline()
    return Headline(promise_line(promise, None), {"promise": promise})


def write(
    outcome: PassOutcome,
    args: argparse.Namespace,
    notes: Sequence[str] = (),
    headline: Headline | None = None,
) -> int:
    """Write what passes came to, and print what they did and the notes."""
    from trimtab.core.progress import Stderr

    from ..report.lines import next_steps, pass_lines

    path = outcome.written.save(args.output)
    first, *lines = pass_lines(outcome, path)
    line, figures = headline or Headline()
    print("\n".join([f"{first}; {line}" if line else first, *lines, *notes]))  # noqa: T201
    write_json(outcome, args, path, figures)
    if outcome.written is outcome.after:
        judge = bool(outcome.kept) or "promise" in outcome.after.lineage[-1].notes
        for line in next_steps(path, outcome.before.name, judge=judge):
            Stderr().say(line)
    return 0


def write_json(
    outcome: PassOutcome, args: argparse.Namespace, path: Path, figures: Mapping[str, Any]
) -> None:
    """Write what the passes did to the file of --json, if there is one."""
    import json
    from pathlib import Path

    from trimtab.core.files import write_text

    from ..report.plain_json import finite

    if args.json:
        text = json.dumps(finite(outcome.to_json(path, figures)), indent=1, default=str)
        write_text(Path(args.json), text + "\n")
