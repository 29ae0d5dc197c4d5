"""Command line: each file in `commands/` is a command, and each pass is one as well.

Nothing heavy is imported before a command is chosen, so `trimtab --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import logging
import os
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn, TextIO, cast

from trimtab.core.errors import OptionError, TrimtabError, nearest
from trimtab.core.files import STDOUT, standard_output
from trimtab.core.ort.telemetry import disable_telemetry
from trimtab.core.text import PrintableStream, printable

from .supervisor import supervise

#: Order of the commands in the help; others follow by name.
ORDER = ("export", "optimize", "run", "eval", "bench", "gate", "doctor", "prune", "quantize")
#: Modules of `commands/` that are shared, not commands.
SHARED = frozenset({"bench_request", "data_options", "doctor_prune", "one_pass"})
#: Arguments that ask for a text: no model is touched, so nothing needs to be survived.
_TEXTS = frozenset({"-h", "--help", "--version", "help"})
EPILOG = """\
every pass is a command too, as in `trimtab simplify MODEL -o OUT`; `trimtab passes` lists them.

exit codes: 0 done or passed, 1 a budget is broken, 2 usage or bad input, 3 inconclusive,
4 machine unfit to measure.
"""


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
            message = f"unknown argument {wrong!r}. {hint}"
        sys.stderr.write(printable(f"{self.prog}: {message}") + "\n")
        raise SystemExit(2)

    def refuse_unknown(self, arguments: Sequence[str]) -> None:
        """Refuse an option that does not exist, before a required one is missed."""
        known = {o for action in self._actions for o in action.option_strings}
        for argument in arguments:
            if argument == "--":
                return
            name = argument.partition("=")[0]
            if name.startswith("--") and name not in known:
                self.error(f"unrecognized arguments: {argument}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The program itself (no `argv`) runs it in a child process, so that a crash of onnxruntime
    becomes a message; help, and arguments from Python, are run in this process.
    """
    if argv is None and len(sys.argv) > 1 and _TEXTS.isdisjoint(sys.argv):
        code = supervise()
        if code is not None:
            return code
    disable_telemetry()
    # What it logs about a broken model comes back as an error, which is told in one message.
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL + 1)
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Where a file is written to standard output, messages go to the other stream.
    taken = not STDOUT.isdisjoint(arguments)
    messages = PrintableStream(sys.stderr if taken else sys.stdout)
    with standard_output(sys.stdout), contextlib.redirect_stdout(cast("TextIO", messages)):
        return _run(arguments, debug="--debug" in arguments)


def _run(arguments: list[str], *, debug: bool) -> int:
    try:
        return _dispatch([a for a in arguments if a != "--debug"])
    except BrokenPipeError:  # the reader closed the pipe: `trimtab passes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if debug and isinstance(error, Exception):
            raise
        sys.stderr.write(printable(f"trimtab: {_message(error)}") + "\n")
        if isinstance(error, KeyboardInterrupt):
            return 130
        return error.exit_code if isinstance(error, TrimtabError) else 2


def _message(error: BaseException) -> str:
    """Return what to say of an error that ends a command."""
    if isinstance(error, TrimtabError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; no partial output was left"
    if isinstance(error, MemoryError):
        return "out of memory. Give fewer samples or a smaller batch"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply"
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    return _unexpected(error)


def _unexpected(error: BaseException) -> str:
    """Return the message of an error that nobody foresaw: the model's own fault if it has one."""
    from .open_model import fault_of_opened

    fault = fault_of_opened()
    if fault is not None:
        return str(fault)
    text = f"unexpected {type(error).__name__}: {str(error)[:1000]}"
    return f"{text}. This is a bug of trimtab; --debug shows where. Please report it"


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help"} or arguments == ["help"]:
        sys.stdout.write(_help())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"trimtab {version('trimtab')}\n")
        return 0
    name, *rest = arguments
    if name == "help":
        name, rest = rest[0], ["--help"]
    if name.startswith("-"):
        raise OptionError(f"unknown option {name!r}", hint="The command comes first: see --help")
    command = _command(name)
    parser = Parser(
        prog=f"trimtab {name}",
        description=command.__doc__ or command.SUMMARY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    data_options = _configure(command, parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.refuse_unknown(rest)
    args = parser.parse_intermixed_args(rest)
    data_options.join(args)
    code: int = command.execute(args)
    return code


def _configure(command: ModuleType, parser: argparse.ArgumentParser) -> ModuleType:
    """Add the options of a command, and of its data; return the module of the latter."""
    from .commands import data_options

    command.configure(parser)
    data_options.add(parser)
    return data_options


def _names() -> list[str]:
    from . import commands

    found = [info.name for info in pkgutil.iter_modules(commands.__path__)]
    names = [name.replace("_", "-") for name in found if name not in SHARED]
    return sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))


def _command(name: str) -> ModuleType:
    if name in _names():
        return importlib.import_module(f"trimtab.commands.{name.replace('-', '_')}")
    from .commands import one_pass
    from .passes import ALIASES, names

    if name in names() or name in ALIASES:
        return one_pass.command(name)
    raise OptionError(f"unknown command {name!r}", hint=nearest(name, [*_names(), *names()]))


def _help() -> str:
    lines = [
        "usage: trimtab COMMAND [options]      trimtab COMMAND --help",
        "",
        "Take a PyTorch or ONNX model to the smallest, fastest ONNX model that still does its job,",
        "prove it by measurement, and keep it so in CI.",
        "",
        "commands:",
    ]
    lines += [f"  {name:<10} {_command(name).SUMMARY}" for name in _names()]
    return "\n".join([*lines, "", EPILOG])


if __name__ == "__main__":
    raise SystemExit(main())
