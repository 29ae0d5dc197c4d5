"""Print a script that completes commands and options in a shell.

trimtab completion bash > ~/.local/share/bash-completion/completions/trimtab
trimtab completion zsh > ~/.zsh/completions/_trimtab        a folder of $fpath
trimtab completion tcsh >> ~/.tcshrc
"""

from __future__ import annotations

import argparse

SUMMARY = "print a script that completes commands and options in a shell"
EXAMPLE = "trimtab completion bash"
SHELLS = ("bash", "zsh", "tcsh")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def execute(args: argparse.Namespace) -> int:
    """Print the script."""
    from trimtab.core.errors import MissingExtraError
    from trimtab.passes import names as passes

    from . import registry

    try:
        import shtab
    except ImportError as error:
        raise MissingExtraError("needs the package shtab", extra="completion") from error
    whole = argparse.ArgumentParser(prog="trimtab")
    group = whole.add_subparsers()
    for name in dict.fromkeys([*registry.names(), *passes()]):
        module = registry.command(name)
        parent = registry.parser_of(name, module)
        group.add_parser(name, parents=[parent], add_help=False, help=module.SUMMARY)
    print(shtab.complete(whole, args.shell))  # noqa: T201
    return 0
