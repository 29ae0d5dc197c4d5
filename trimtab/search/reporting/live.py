"""Progress of a search: on a terminal a table that redraws, elsewhere plain lines.

Redrawing needs rich, which the extra `optimize` installs; without it the lines stay plain.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from trimtab.core.progress import Progress, Stderr
from trimtab.core.text import bytes_text, printable

from ..ranking import speedup
from ..result import Goal, Result, cost, frontier

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from .log import Watch

T = TypeVar("T")
#: Redraws a second, and candidates that fit beside the log.
REDRAWS, LISTED = 4.0, 24


@contextlib.contextmanager
def watching(
    goal: Goal = "latency", stream: TextIO | None = None
) -> Iterator[tuple[Progress, Watch | None]]:
    """Yield the progress of a search on a stream (default stderr), and the callback for decisions.

    The frontier that is shown is that of quality and the goal.
    """
    stream = stream or sys.stderr
    if not stream.isatty() or importlib.util.find_spec("rich") is None:
        yield Stderr(stream), None
        return
    from rich.console import Console

    board = Board(Console(file=stream), goal)
    with board:
        yield board, board.watch


class Board:
    """Table of the candidates with the frontier on top, the log above it, the progress below it."""

    def __init__(self, console: Console, goal: Goal = "latency") -> None:
        from rich.live import Live

        self.goal = goal
        self.console = console
        self.results: Sequence[Result] = ()
        self.doing = ""
        self._live = Live(
            console=console, get_renderable=self.drawn, refresh_per_second=REDRAWS, transient=True
        )

    def __enter__(self) -> Board:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print one line of the log, above the table."""
        self.console.print(printable(text), markup=False, highlight=False)

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items and show how many have passed, below the table."""
        start = time.monotonic()
        try:
            for count, item in enumerate(items, 1):
                yield item
                of = f"/{total}" if total else ""
                self.doing = f"{label} {count}{of}, {time.monotonic() - start:.0f} s"
        finally:
            self.doing = ""

    def watch(self, entry: dict[str, Any], results: Sequence[Result]) -> None:
        """Take in a decision and the results so far."""
        self.say(f"[{entry['at_s']:.0f} s] {entry['what']}")
        if results:
            self.results = tuple(results)

    def drawn(self) -> RenderableType:
        """Draw the table and the progress."""
        from rich.console import Group
        from rich.text import Text

        # Text shows names as they are: markup in them has no effect.
        parts: list[RenderableType] = [self._table()] if self.results else []
        return Group(*parts, *([Text(printable(self.doing), style="dim")] if self.doing else []))

    def _table(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        best = frontier(self.results, self.goal)
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("candidate", overflow="ellipsis", no_wrap=True)
        for title in ("file", "quality", "speed-up"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("state", overflow="ellipsis", no_wrap=True)
        for result in ranked(self.results, best, self.goal)[:LISTED]:
            on = any(result is other for other in best)
            cells = [Text(printable(text)) for text in self._cells(result, on=on)]
            table.add_row(*cells, style="bold" if on else "dim" if state(result) else "")
        if len(self.results) > LISTED:
            table.add_row(Text(f"and {len(self.results) - LISTED} more"), style="dim")
        return table

    def _cells(self, result: Result, *, on: bool) -> list[str]:
        quality = "" if result.selection is None else f"{result.selection.value:.4f}"
        size = bytes_text(result.size_bytes) if result.size_bytes else ""
        ratio = speedup(result)
        remark = "frontier" if on else state(result)
        return [result.name, size, quality, "" if ratio is None else str(ratio), remark]


def state(result: Result) -> str:
    """Return why a candidate is out; empty where it is not."""
    return (result.failure or result.dropped or "").partition("\n")[0]


def ranked(results: Sequence[Result], best: Sequence[Result], goal: Goal) -> list[Result]:
    """Sort results: the frontier, then those that may still win, by the goal, then the rest."""

    def key(result: Result) -> tuple[bool, bool, float]:
        on = any(result is other for other in best)
        return not on, bool(state(result)), cost(result, goal)

    return sorted(results, key=key)
