"""Progress of a search: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from graphs import relu_only
from made_comparisons import made_comparison

from trimtab.core.metric import Quality
from trimtab.core.progress import Stderr
from trimtab.search.reporting.live import LISTED, Board, ranked, watching
from trimtab.search.result import Result, frontier

console = pytest.importorskip("rich.console", reason="rich is not installed")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def result(name: str, quality: float, ratio: float, **changes: Any) -> Result:
    value = Quality("top1", quality, np.full(4, quality), 4)
    options: dict[str, Any] = {"model": relu_only(), "comparison": made_comparison(ratio)} | changes
    return Result(name, size_bytes=1000, selection=value, **options)


RESULTS = [
    result("slow", 0.80, 1.1),
    result("best", 0.89, 2.0),
    result("exact", 0.90, 1.2),
    result("lost", 0.10, 1.0, comparison=None, dropped="loses 0.8"),
]


def drawn(results: list[Result]) -> list[str]:
    stream = io.StringIO()
    board = Board(console.Console(file=stream, width=100))
    board.results = results
    board.console.print(board.drawn())
    return stream.getvalue().splitlines()


def test_the_frontier_stands_first_and_what_is_out_last() -> None:
    order = [r.name for r in ranked(RESULTS, frontier(RESULTS, "latency"), "latency")]
    assert order == ["best", "exact", "slow", "lost"]
    lines = [line.rstrip() for line in drawn(RESULTS)]
    assert [line.split()[0] for line in lines[1:]] == order
    assert lines[1].endswith("frontier")
    assert "2.00x [1.90, 2.10]" in lines[1]
    assert "loses 0.8" in lines[-1]


def test_markup_in_names_has_no_effect() -> None:
    assert any("[red]x[/red]" in line for line in drawn([result("[red]x[/red]", 0.9, 1.5)]))


def test_many_candidates_stay_on_the_screen() -> None:
    lines = drawn([result(f"c{i}", 0.5, 1.0 + i / 100) for i in range(LISTED + 7)])
    assert lines[-1].startswith("and 7 more")
    assert len(lines) == LISTED + 2


def test_a_terminal_gets_the_table_and_the_log() -> None:
    stream = Terminal()
    with watching(stream=stream) as (progress, watch):
        assert watch is not None
        watch({"at_s": 3.0, "what": "best: kept"}, RESULTS)
        assert list(progress.track([1, 2], "evaluating", 2)) == [1, 2]
    assert "[3 s] best: kept" in stream.getvalue()
    assert "frontier" in stream.getvalue()
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back


def test_elsewhere_there_are_plain_lines() -> None:
    stream = io.StringIO()
    with watching(stream=stream) as (progress, watch):
        assert isinstance(progress, Stderr)
        assert watch is None
        progress.say("news")
    assert stream.getvalue() == "news\n"
