"""Remove channels, or set weights to zero.

--channels, --macs or --latency remove whole channels: the model becomes smaller and faster.
--sparsity and --pattern set single weights to zero, which brings no speed on onnxruntime by itself:
the compressed file shrinks (or the file itself, with --store sparse), and retraining starts there.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.core.model import Model
    from trimtab.passes.base import Pass

SUMMARY = "remove channels for speed, or set weights to zero by magnitude"
EXAMPLE = "trimtab prune float.onnx -o pruned.onnx --channels 30% --data calib.npz"
#: Fields whose option has another name.
OPTIONS = {"ratio": "--channels"}
#: Seconds for measuring the latency before and after.
SECONDS = 1.5
#: Fields that say how much is removed, one of which a user must give.
STRENGTHS = ("ratio", "macs", "latency", "widths", "sparsity", "threshold", "pattern")
#: Fields that both passes have.
SHARED = ("importance", "scope", "block", "samples")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command: those of both passes."""
    from trimtab.passes import find

    from .one_pass import add_context_options, add_fields, add_model_and_output

    channels, magnitude = find("prune-channels"), find("prune-magnitude")
    add_model_and_output(parser)
    ratio = channels.fields()["ratio"]
    parser.add_argument("--channels", dest="ratio", metavar="SHARE", help=ratio.help)
    add_fields(parser, channels, "ratio", "data", *SHARED)
    add_fields(parser, magnitude, "data", *SHARED)
    for name in SHARED:
        texts = [f"{k.name()}: {k.fields()[name].help.rstrip('.')}" for k in (channels, magnitude)]
        parser.add_argument(f"--{name}", metavar=name.upper(), help="; ".join(texts))
    text = "print the latency before and after"
    parser.add_argument("--measure", action=argparse.BooleanOptionalAction, default=True, help=text)
    add_context_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Prune and write."""
    from .one_pass import apply, parsed_fields

    kind = _kind(args)

    def measured(before: Model, after: Model) -> list[str]:
        wanted = args.measure and before.digest != after.digest
        return _latency(before, after, args) if wanted else []

    return apply([kind.from_json(parsed_fields(args, kind))], args, accept=measured)


def _latency(before: Model, after: Model, args: argparse.Namespace) -> list[str]:
    """Return a line with both latencies, measured interleaved, where it is not printed already."""
    from trimtab.core.ort.feeding import feeding
    from trimtab.core.ort.session import SessionConfig
    from trimtab.core.text import counted, duration_text

    from .one_pass import context

    ctx = context(args)
    if "latency_ms" in after.lineage[-1].notes or ctx.clock is None:
        return []
    config = SessionConfig.of(ctx.target)
    fed = feeding(before, ctx.source(before))
    old, new = ctx.clock.median_ns([before, after], fed.feeds, config, SECONDS)
    both = f"{duration_text(old)} -> {duration_text(new)}"
    threads = counted(ctx.target.threads, "thread")
    return [f"latency, {threads}: {both}, {old / new:.2f}x", f"fed: {fed}"]


def _kind(args: argparse.Namespace) -> type[Pass]:
    """Return the pass that the options belong to.

    Raises:
        OptionError: they belong to both, or none says how much to remove.
    """
    from trimtab.core.errors import OptionError
    from trimtab.passes import find

    channels, magnitude = find("prune-channels"), find("prune-magnitude")
    options = {
        kind: [
            OPTIONS.get(name, field.option)
            for name, field in kind.fields().items()
            if name not in other.fields() and name != "data" and getattr(args, name) is not None
        ]
        for kind, other in ((channels, magnitude), (magnitude, channels))
    }
    if options[channels] and options[magnitude]:
        raise OptionError(
            f"{', '.join(options[channels])} remove channels, {', '.join(options[magnitude])} set "
            "weights to zero: one call does one of them",
            where="prune",
            hint="Run the command twice, or write a recipe of both",
        )
    if all(getattr(args, name) is None for name in STRENGTHS):
        raise OptionError(
            "nothing says how much to remove",
            where="prune",
            hint="Give --channels 30%, --macs 70% or --latency 70% for a smaller, faster model; "
            "--sparsity 80% or --pattern 2:4 sets single weights to zero, which makes none faster",
        )
    return channels if options[channels] else magnitude
