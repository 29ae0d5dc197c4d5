"""The fresh run that confirms a candidate: it goes on until the verdict stands, or time ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from ..result import Result
from ..run import Search
from ..speed.timing import SECONDS_PER_GRAPH, VERDICT_ALONE
from ..standing import speed_standing

if TYPE_CHECKING:
    from trimtab.runtime_bench.measure.values import Comparison

#: Seconds for each graph of the first part.
SECONDS_EACH = 8.0
#: Without a time limit, times that a fresh run may take as long as a graph was given in the search.
TIMES = 5
#: Each further part is so many times as long as the one before: longer parts have longer blocks.
LONGER = 1.5
#: A part shorter than this tells nothing: its processes start, and its sessions warm up.
LEAST_SECONDS = 2.0
#: A part has time for so many blocks, of this many runs of both models, however slow they are.
BLOCKS, RUNS_A_BLOCK = 12, 8


@dataclass
class FreshRun:
    """Fresh runs of one confirmation.

    Attributes:
        search: state of the search, with its timer and what is left of its time.
    """

    search: Search

    def compared(
        self, candidate: Result, rival: Result | None, required: float
    ) -> list[Comparison]:
        """Measure a candidate, and its rival beside it at first, until the verdict stands.

        Noise that keeps the verdict open is met by further parts with the candidate alone, each
        longer than the one before; the blocks of all parts count together.

        Args:
            candidate: candidate with a model and a comparison of the search.
            rival: the next best.
            required: speed-up that the verdict is about.
        """
        models = [r.subject for r in (candidate, rival) if r is not None and r.model is not None]
        left = self._allowed()
        wanted = max(SECONDS_EACH, self._slow_seconds(candidate)) * len(models)
        if wanted > left and len(models) > 1 and left < SECONDS_EACH:
            models, wanted = models[:1], wanted / 2
        seconds = max(1.0, min(wanted, left))
        timer, started = self.search.timer, monotonic()
        found = list(timer.again(models, seconds))
        left = min(left - seconds, left - (monotonic() - started))
        parts, together = [found[0]], found[0]
        seconds /= len(models)
        while not _is_over(together, required) and left >= LEAST_SECONDS:
            seconds = min(LONGER * seconds, left)
            self._report_open(candidate, together, seconds)
            started = monotonic()
            width = VERDICT_ALONE if required <= 1 else None
            again = timer.again(models[:1], seconds, width=width, part=len(parts))
            left = min(left - seconds, left - (monotonic() - started))
            parts.append(again[0])
            together = timer.joined(parts)
        found[0] = together
        self._report([candidate, rival], found)
        return found

    def _allowed(self) -> float:
        """Return the seconds that the fresh run of one candidate may take."""
        known = self.search.spent.confirming_s
        return TIMES * SECONDS_PER_GRAPH if known is None else known

    def _slow_seconds(self, candidate: Result) -> float:
        """Return the seconds that a first part of a slow model needs."""
        c = candidate.comparison
        medians = (c.base.percentile_ns(0.5), c.candidate.percentile_ns(0.5)) if c else ()
        return BLOCKS * RUNS_A_BLOCK * sum(ns or 0.0 for ns in medians) / 1e9

    def _report_open(self, candidate: Result, so_far: Comparison, seconds: float) -> None:
        ratio = f"{so_far.ratio:.2f}x [{so_far.low:.2f}, {so_far.high:.2f}]"
        text = f"{candidate.name} in a fresh run: {ratio} is open, {seconds:.0f} s more"
        self.search.log.note("confirm", text, candidate=candidate.name)

    def _report(self, results: Sequence[Result | None], found: Sequence[Comparison]) -> None:
        for result, c in zip(results, found, strict=False):
            if result is not None:
                text = f"{result.name} in a fresh run: {c.ratio:.2f}x [{c.low:.2f}, {c.high:.2f}]"
                ends = [c.ratio, c.low, c.high]
                self.search.log.note("confirm", text, candidate=result.name, speedup=ends)


def _is_over(comparison: Comparison, required: float) -> bool:
    """Return whether more time would change nothing: a verdict, an error, or the user's wish."""
    ended = comparison.error is not None or comparison.interrupted
    return ended or speed_standing(comparison, required) != "open"
