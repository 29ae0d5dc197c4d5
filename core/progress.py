"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TextIO, TypeVar

from .text import printable

T = TypeVar("T")


class Progress(Protocol):
    """Display of the progress of long work."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items and show how many are done."""
        ...

    def say(self, text: str) -> None:
        """Write a message on a line of its own."""
        ...


class Silent:
    """No display: the default of the Python API."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG002
        """Yield the items."""
        yield from items

    def say(self, text: str) -> None:
        """Ignore the message."""


class _Verbosity:
    """Amount that `Stderr` shows, which the command line decides once for all its parts."""

    quiet = False
    verbose = False
    began: float | None = None


@contextlib.contextmanager
def verbosity(*, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Let `Stderr` show nothing, or progress every second.

    With `verbose`, what libraries log is written to stderr as well.
    """
    before = _Verbosity.quiet, _Verbosity.verbose, _Verbosity.began
    _Verbosity.quiet, _Verbosity.verbose, _Verbosity.began = quiet, verbose, time.monotonic()
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    try:
        yield
    finally:
        _Verbosity.quiet, _Verbosity.verbose, _Verbosity.began = before


def began() -> float:
    """Return when the running command began, on the monotonic clock; now, where none runs."""
    return time.monotonic() if _Verbosity.began is None else _Verbosity.began


class Stderr:
    """A bar that redraws on a terminal, a line every ten seconds elsewhere; see `verbosity`."""

    def __init__(self, stream: TextIO | None = None, every_seconds: float = 10.0) -> None:
        self.stream = stream or sys.stderr
        every_seconds = 1.0 if _Verbosity.verbose else every_seconds
        self.every_seconds = 0.1 if self.stream.isatty() else every_seconds

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items and show how many are done."""
        start = shown = time.monotonic()
        drawn = False
        for count, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - shown >= self.every_seconds:
                shown, drawn = now, True
                self._draw(label, count, total, now - start)
        if drawn and self.stream.isatty():
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def say(self, text: str) -> None:
        """Write a message on a line of its own."""
        if _Verbosity.quiet:
            return
        start = "\r\x1b[K" if self.stream.isatty() else ""
        self.stream.write(f"{start}{printable(text)}\n")
        self.stream.flush()

    def _draw(self, label: str, count: int, total: int | None, seconds: float) -> None:
        if _Verbosity.quiet:
            return
        if total:
            left = seconds / count * max(0, total - count)
            text = f"{label} {count}/{total} ({100 * count // total}%), {left:.0f} s left"
        else:
            text = f"{label} {count}, {seconds:.0f} s"
        text = printable(text)
        self.stream.write(f"\r\x1b[K{text}" if self.stream.isatty() else f"{text}\n")
        self.stream.flush()
