"""List the passes with their fields and defaults."""

from __future__ import annotations

import argparse

SUMMARY = "list the passes with fields and defaults"
EXAMPLE = "trimtab passes quantize-static"


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
        print(f"{kind.name()}\n  {kind.summary()}")  # noqa: T201
        for field in kind.fields().values():
            print(f"    {field.name}: {field.type_name} = {field.default}\n        {field.help}")  # noqa: T201
    return 0
