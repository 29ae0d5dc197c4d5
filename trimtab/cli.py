"""Command line: each file in `commands/` is a command, and each pass is one as well.

Nothing heavy is imported before a command is chosen, so `trimtab --help` answers at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, cast

from trimtab.core.errors import OptionError, TrimtabError
from trimtab.core.files import STDOUT, standard_output, write_text
from trimtab.core.ort.telemetry import disable_telemetry
from trimtab.core.progress import verbosity
from trimtab.core.text import PrintableStream, printable

from .commands import data_options, registry
from .supervisor import supervise

#: Arguments that ask for a text: no model is touched, so nothing needs to be survived.
_TEXTS = frozenset({"-h", "--help", "--version", "-V"})
_TEXT_COMMANDS = frozenset({"help", "version", "completion"})
EPILOG = """\
every pass is a command too, as in `trimtab simplify MODEL -o OUT`; `trimtab passes` lists them.

exit codes: 0 done or passed, 1 a budget is broken, 2 usage or bad input, 3 inconclusive,
4 machine unfit to measure.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The program itself (no `argv`) runs it in a child process, so that a crash of onnxruntime
    becomes a message; help, and arguments from Python, are run in this process.
    """
    texts = _TEXTS.intersection(sys.argv) or _TEXT_COMMANDS.intersection(sys.argv[1:2])
    if argv is None and len(sys.argv) > 1 and not texts:
        code = supervise()
        if code is not None:
            return code
    disable_telemetry()
    arguments = list(sys.argv[1:] if argv is None else argv)
    # What it logs about a broken model comes back as an error, which is told in one message.
    level = logging.INFO if _asks(arguments, "--verbose") else logging.CRITICAL + 1
    logging.getLogger("onnx_ir").setLevel(level)
    # Where a file is written to standard output, messages go to the other stream.
    taken = not STDOUT.isdisjoint(part for a in arguments for part in (a, a.partition("=")[2]))
    messages = PrintableStream(sys.stderr if taken else sys.stdout)
    told = [a for a in arguments if a.partition("=")[0] == registry.TIMINGS]
    arguments = [a for a in arguments if a not in told]
    with standard_output(sys.stdout), contextlib.redirect_stdout(cast("TextIO", messages)):
        return _run_timed(arguments, told[-1]) if told else _run(arguments)


def _run_timed(arguments: list[str], option: str) -> int:
    """Run a command and tell where its time went: `option` is --timings or --timings=FILE."""
    from trimtab.core.timings import timed

    with timed(time.monotonic()) as timings:
        code = _run(arguments)
    file = option.partition("=")[2]
    if not file:
        sys.stderr.write("\n".join(timings.table()) + "\n")
        return code
    try:
        write_text(Path(file), timings.text())
    except (OSError, TrimtabError) as error:
        sys.stderr.write(printable(f"trimtab: {option}: {_message(error)}") + "\n")
        return code or 2
    return code


def _asks(arguments: Sequence[str], option: str) -> bool:
    """Return whether an option of every command is given, in its long or its short form."""
    return option in arguments or registry.GENERAL[option][0] in arguments


def _run(arguments: list[str]) -> int:
    try:
        with verbosity(quiet=_asks(arguments, "--quiet"), verbose=_asks(arguments, "--verbose")):
            return _dispatch(arguments)
    except BrokenPipeError:  # the reader closed the pipe: `trimtab passes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if _asks(arguments, "--debug") and isinstance(error, Exception):
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
    if len(arguments) == 2 and arguments[0] in {"-h", "--help"}:
        arguments = ["help", arguments[1]]
    if not arguments or arguments[0] in {"-h", "--help"} or arguments == ["help"]:
        sys.stdout.write(_help())
        return 0
    if arguments[0] in {"--version", "-V", "version"}:
        from importlib.metadata import version

        sys.stdout.write(f"trimtab {version('trimtab')}\n")
        return 0
    name, *rest = arguments
    if name.startswith("-"):
        raise OptionError(f"unknown option {name!r}", hint="The command comes first: see --help")
    module = registry.command(name)
    parser = registry.parser_of(name, module)
    parser.refuse_unknown(rest)
    args = parser.parse_intermixed_args(rest)
    data_options.join(args)
    _warn_of_two_builds()
    with data_options.read_once(args):
        code: int = module.execute(args)
    return code


def _warn_of_two_builds() -> None:
    from trimtab.core.ort.builds import two_builds

    warning = two_builds()
    if warning:
        sys.stderr.write(printable(f"trimtab: warning: {warning}") + "\n")


def _help() -> str:
    lines = [
        "usage: trimtab COMMAND [options]      trimtab COMMAND --help",
        "",
        "Take a PyTorch or ONNX model to the smallest, fastest ONNX model that still does its job,",
        "prove it by measurement, and keep it so in CI.",
        "",
        "commands:",
    ]
    lines += [f"  {name:<10} {registry.command(name).SUMMARY}" for name in registry.names()]
    return "\n".join([*lines, "", EPILOG])


if __name__ == "__main__":
    raise SystemExit(main())
