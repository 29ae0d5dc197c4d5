"""A worker process that calls one function of the user's on command.

Started as `python -m trimtab.runtime_bench.measure.workers.function_worker` for each block, it
imports nothing heavy by itself.
"""

from __future__ import annotations

import inspect
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from trimtab.core.callables import import_callable
from trimtab.core.errors import InputError, RunError, TrimtabError

from ..timing import time_calls
from .protocol import Message
from .serving import CommandServer, serve_stdin


class FunctionWorker(CommandServer):
    """Executor of the commands of a function."""

    def __init__(self) -> None:
        self.call: Callable[[], object] = lambda: None

    def errors(self) -> AbstractContextManager[object]:
        """See `CommandServer`; an error of the function names its place."""
        return _place_of_errors(self)

    def do_load(self, spec: str, folder: str) -> Message:
        """Import the function, and call it once."""
        self.name = spec
        os.chdir(folder)
        found = import_callable(spec)
        _check_parameters(found, spec)
        start = time.perf_counter_ns()
        result = found()
        taken_ns = time.perf_counter_ns() - start
        self.call = found
        if callable(result):
            _check_parameters(result, f"what {spec} returns")
            self.call = result
            start = time.perf_counter_ns()
            result()
            taken_ns = time.perf_counter_ns() - start
        return {"ns": taken_ns}

    def do_time(self, runs: int) -> Message:
        """Time a number of consecutive calls."""
        timed = time_calls(self.call, runs)
        return timed.to_json()


def _check_parameters(function: Any, where: str) -> None:
    """Refuse what a call without arguments does not run."""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise InputError(
            "returns at once and runs later, as a coroutine or generator does",
            where=where,
            hint="Name a function that waits for its end",
        )
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise InputError(
            f"cannot be called without arguments ({error})",
            where=where,
            hint="Name a function without parameters, which takes its input itself; one that "
            "returns such a function may load and prepare what that needs",
        ) from None
    except ValueError:  # a builtin without a signature
        return


@contextmanager
def _place_of_errors(worker: FunctionWorker) -> Iterator[None]:
    try:
        yield
    except (TrimtabError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
        raise RunError(
            f"raises {type(error).__name__}: {error}{place}",
            where=worker.name,
            hint="Call it by hand",
        ) from error


def main() -> None:
    """Serve on stdin and stdout; what the function prints is dropped."""
    worker = FunctionWorker()
    serve_stdin(worker, prints_to=os.open(os.devnull, os.O_WRONLY))


if __name__ == "__main__":
    main()
