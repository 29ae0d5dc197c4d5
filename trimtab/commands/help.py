"""Show the options of a command, as `trimtab COMMAND --help` does."""

from __future__ import annotations

import argparse

SUMMARY = "show the options of a command"
EXAMPLE = "trimtab help quantize"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("command", metavar="COMMAND", help="name of a command or pass")


def execute(args: argparse.Namespace) -> int:
    """Print the help."""
    from . import registry

    registry.parser_of(args.command, registry.command(args.command)).print_help()
    return 0
