"""List the passes with their fields and defaults."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.passes.base import Pass

SUMMARY = "list the passes with fields and defaults"
EXAMPLE = "trimtab passes quantize-static"
#: Columns of a line of the list.
WIDTH = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show only this pass")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(args: argparse.Namespace) -> int:
    """Print the list."""
    import json

    from trimtab.core.fields import to_plain
    from trimtab.passes import find, registry

    kinds = [find(args.name)] if args.name else list(registry().values())
    if args.json:
        document = {
            kind.name(): {
                "summary": kind.summary(),
                "fields": {
                    f.name: {"type": f.type_name, "default": to_plain(f.default), "help": f.help}
                    for f in kind.fields().values()
                },
            }
            for kind in kinds
        }
        print(json.dumps(document, indent=1))  # noqa: T201
        return 0
    for kind in kinds:
        print("\n".join(_lines(kind)))  # noqa: T201
    return 0


def _lines(kind: type[Pass]) -> list[str]:
    """Return a pass with its fields, in lines that fit a terminal."""
    lines = [kind.name(), *_wrapped(kind.summary(), 2)]
    for field in kind.fields().values():
        default = f", default {field.default_word}" if field.default_word else ""
        lines += [f"    {field.name}: {field.metavar}{default}", *_wrapped(field.help, 8)]
    return lines


def _wrapped(text: str, columns: int) -> list[str]:
    import textwrap

    return textwrap.indent(textwrap.fill(text, WIDTH - columns), " " * columns).splitlines()
