"""Confirmation of the best candidate on data, and in a run, that nothing was chosen on.

The best of many estimates is too good by the luck that made it the best (the winner's curse), so
neither the quality nor the speed-up that chose the winner is reported at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .fingerprint import structure
from .ranking import objections, speedup
from .result import Result
from .run import Search

#: Seconds for each graph of the fresh run.
SECONDS_EACH = 8.0


@dataclass
class Confirmation:
    """Confirmation of candidates from the best on, until one satisfies all on fresh evidence.

    Attributes:
        search: state of the search, whose evaluator and timer give the fresh evidence.
        original: the float model with its quality on the test split.
        results: all candidates; those that were examined with the new evidence.
        ranked: the candidates from best to worst.
        fallback: the simplified float model, which needs no speed-up.
        chosen: the first that was confirmed; None where none was.
        looks: number of candidates that were evaluated on the test split.
        why: reasons against the candidates before the chosen one.
    """

    search: Search
    original: Result
    results: list[Result]
    ranked: list[Result]
    fallback: Result | None
    chosen: Result | None = None
    looks: int = 0
    why: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Examine the candidates in their order and choose the first that is confirmed."""
        ranked = tuple(self.ranked)
        for candidate in ranked:
            rival = None
            self.looks += 1
            tested = self.search.evaluator.confirmed(candidate)
            against = self._objections(tested)
            if not against:
                rival = _runner_up(candidate, ranked[self.looks :])
                tested, rival = self._measured_again(tested, rival)
                against = self._fresh_objections(tested)
            self._update(candidate, tested)
            if not against:
                self.chosen = self._overtaken(tested, rival) or tested
                return
            line = f"{tested.name} was not confirmed on the test split: {'; '.join(against)}."
            self._note(line, tested)

    def _update(self, old: Result, new: Result) -> None:
        """Replace a result by the one with the new evidence."""
        for kept in (self.results, self.ranked):
            kept[:] = [new if r.name == old.name else r for r in kept]
        if self.fallback is not None and self.fallback.name == old.name:
            self.fallback = new

    def _note(self, line: str, candidate: Result) -> None:
        self.why.append(line)
        self.search.log.note("confirm", line, candidate=candidate.name)

    def _measured_again(
        self, candidate: Result, rival: Result | None
    ) -> tuple[Result, Result | None]:
        """Measure both again against the original, side by side."""
        if candidate.comparison is None or candidate.model is None:
            return candidate, None
        models = [candidate.model]
        if rival is not None and rival.model is not None:
            models.append(rival.model)
        found = self.search.timer.again(models, SECONDS_EACH * len(models))
        for result, c in zip([candidate, rival], found, strict=False):
            if result is not None:
                text = f"{result.name} in a fresh run: {c.ratio:.2f}x [{c.low:.2f}, {c.high:.2f}]"
                ends = [c.ratio, c.low, c.high]
                self.search.log.note("confirm", text, candidate=result.name, speedup=ends)
        if rival is not None and len(found) > 1:
            rival = replace(rival, confirmation=found[1])
            self._update(rival, rival)
        return replace(candidate, confirmation=found[0]), rival

    def _overtaken(self, chosen: Result, rival: Result | None) -> Result | None:
        """Return the runner-up where it is clearly faster in the fresh run and confirmed as well.

        The run that ranked them may have been noisier; this one measured both side by side.
        """
        if rival is None or rival.confirmation is None or chosen.confirmation is None:
            return None
        clear = rival.confirmation.low > chosen.confirmation.high
        if not clear or self.search.constraints.goal != "latency":
            return None
        self.looks += 1
        tested = self.search.evaluator.confirmed(rival)
        against = self._objections(tested) + self._fresh_objections(tested)
        self._update(rival, tested)
        if against:
            return None
        than = f"than {chosen.name} in the fresh run, beyond both intervals"
        self._note(f"{tested.name} was faster {than}.", tested)
        return tested

    def _objections(self, tested: Result) -> list[str]:
        return objections(tested, self.original, self.search.constraints, "test")

    def _fresh_objections(self, tested: Result) -> list[str]:
        """Return the constraints that a candidate violates in the fresh run."""
        if tested.confirmation is None:
            return []
        fresh = replace(tested, comparison=tested.confirmation)
        if fresh.comparison is not None and fresh.comparison.error:
            return [fresh.comparison.error]
        against = self._objections(fresh)
        ratio = speedup(fresh)
        is_fallback = self.fallback is not None and tested.name == self.fallback.name
        needs_speed = self.search.constraints.goal == "latency" and not is_fallback
        if needs_speed and ratio is not None and not ratio.faster:
            against.append(f"in a fresh run it is {ratio}, not faster for certain")
        return against


def _runner_up(candidate: Result, ranked: Sequence[Result]) -> Result | None:
    """Return the next best candidate that runs other kernels and was measured."""
    if candidate.model is None:
        return None
    own = structure(candidate.model)
    measured = ((r, r.model) for r in ranked if r.comparison is not None)
    return next((r for r, model in measured if model and structure(model) != own), None)
