"""All commands by name, with their parsers: those of this folder, and each pass."""

from __future__ import annotations

import argparse
import difflib
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from trimtab.core.errors import OptionError, close_to, nearest
from trimtab.core.text import printable

from . import data_options

#: Order of the commands in the help; others follow by name.
ORDER = ("export", "optimize", "run", "eval", "bench", "gate", "doctor", "prune", "quantize")
#: Modules of this folder that are shared, not commands.
SHARED = frozenset({"bench_request", "data_options", "doctor_prune", "one_pass", "registry"})
#: Options of every command, which `cli` reads itself.
GENERAL = {
    "--quiet": ("-q", "print results and errors only"),
    "--verbose": ("-v", "report progress more often, and what libraries log"),
    "--debug": (None, "show the traceback of an error"),
}
#: Option of every command that `cli` takes away, with or without a file: --timings=FILE.
TIMINGS = "--timings"


class Parser(argparse.ArgumentParser):
    """Argument parser that reports one message, with the nearest option for a misspelt one."""

    def error(self, message: str) -> NoReturn:
        """Print one message and exit with code 2."""
        if message.startswith("unrecognized arguments:"):
            wrong = message.partition(":")[2].split(maxsplit=1)[0].partition("=")[0]
            options = [o for action in self._actions for o in action.option_strings]
            # Without the dashes, which make all options look alike.
            near = difflib.get_close_matches(wrong.strip("-"), [o.strip("-") for o in options], n=1)
            hint = f"Did you mean '--{near[0]}'?" if near else f"See `{self.prog} --help`"
            hint = hint if wrong.startswith("-") else f"It is of no option. {self._example()}"
            message = f"unknown argument {wrong!r}. {hint}"
        elif message.startswith("the following arguments are required:"):
            message = f"needs {', '.join(self._named(message))}. {self._example()}"
        sys.stderr.write(printable(f"{self.prog}: {message}") + "\n")
        raise SystemExit(2)

    def _named(self, message: str) -> list[str]:
        """Return what is missing, by the words of the help: `-o DIR`."""
        given = {"/".join(a.option_strings) or words_of(a): a for a in self._actions}
        missing = message.partition(":")[2].strip().split(", ")
        options = {name: given[name] for name in missing if name.startswith("-")}
        words = {name: f"{name.partition('/')[0]} {words_of(a)}" for name, a in options.items()}
        return [words.get(name, name) for name in missing]

    def _example(self) -> str:
        example = (self.description or "").partition("\n")[0]
        return example[:1].upper() + example[1:]

    def refuse_unknown(self, arguments: Sequence[str]) -> None:
        """Refuse an option that does not exist, before a required one is missed."""
        known = {o for action in self._actions for o in action.option_strings}
        for argument in arguments:
            if argument == "--":
                return
            name = argument.partition("=")[0]
            if name.startswith("--") and name not in known:
                self.error(f"unrecognized arguments: {argument}")


def names() -> list[str]:
    """Return the names of the commands of this folder, in the order of the help."""
    from trimtab import commands

    found = [info.name for info in pkgutil.iter_modules(commands.__path__)]
    listed = [name.replace("_", "-") for name in found if name not in SHARED]
    return sorted(listed, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))


def command(name: str) -> ModuleType:
    """Return the module of a command, or one that applies the pass of that name.

    Raises:
        OptionError: there is neither.
    """
    if name in names():
        return importlib.import_module(f"trimtab.commands.{name.replace('-', '_')}")
    from trimtab.passes import ALIASES
    from trimtab.passes import names as passes

    from . import one_pass

    if name in passes() or name in ALIASES:
        return one_pass.command(name)
    known = [*names(), *passes()]
    hint = nearest(name, known)
    if not close_to(name, known):
        hint = "`trimtab --help` lists them, `trimtab passes` the passes, which are commands too"
    raise OptionError(f"unknown command {name!r}", hint=hint)


def parser_of(name: str, module: ModuleType) -> Parser:
    """Return the parser of a command, with the options of its data and of every command."""
    parser = Parser(
        prog=f"trimtab {name}",
        description=f"for example: {module.EXAMPLE}\n\n{module.__doc__ or module.SUMMARY}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    data_options.add(parser)
    group = parser.add_argument_group("what it tells")
    for option, (short, text) in GENERAL.items():
        group.add_argument(*([short] if short else []), option, action="store_true", help=text)
    text = "tell where the time went; --timings=FILE writes it as JSON"
    group.add_argument(TIMINGS, nargs="?", metavar="FILE", help=text)
    parser.usage = f"{parser.prog} {' '.join([*_needed(parser), '[options]'])}"
    return parser


def _needed(parser: argparse.ArgumentParser) -> list[str]:
    """Return what the usage of a command names: its arguments, and the options that it needs."""
    found = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them
        word = words_of(action)
        if not action.option_strings:
            found.append(f"[{word}]" if action.nargs in {"?", "*"} else word)
        elif action.required:
            found.append(f"{action.option_strings[0]} {word}")
    return found


def words_of(action: argparse.Action) -> str:
    """Return what a person writes for the value of an argument."""
    if action.choices is not None and action.metavar is None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.metavar if isinstance(action.metavar, str) else action.dest.upper()
