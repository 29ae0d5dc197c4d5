"""Confirmation of the best candidate on data, and in a run, that nothing was chosen on.

The best of many estimates is too good by the luck that made it the best (the winner's curse), so
neither the quality nor the speed-up that chose the winner is reported at the end.

One rule holds for all candidates, the float one among them: what the fresh evidence refutes is out,
what it proves is taken, and what stays open is taken where the search had proved it and no later
candidate is proved instead. The float model is the answer where none is left.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isnan

from ..ranking import HOPE, item_drops, objections, speedup, tied
from ..result import TIMES, Constraints, Result
from ..run import Search
from ..speed.fingerprint import kernels
from ..standing import required_speedup, speed_standing
from .fresh_run import FreshRun
from .judging import QualityJudge


@dataclass
class Confirmation:
    """Confirmation of candidates from the best on, until one satisfies all on fresh evidence.

    Attributes:
        search: state of the search, whose evaluator and timer give the fresh evidence.
        original: the float model with its quality on the test split.
        results: all candidates; those that were examined with the new evidence.
        ranked: the candidates from best to worst.
        fallbacks: forms of the float model that need no speed-up.
        chosen: the first that was confirmed, or the best that stayed open; None where there is
            neither.
        looks: number of candidates of different answers that were evaluated on the test split.
        why: reasons against the candidates before the chosen one.
    """

    search: Search
    original: Result
    results: list[Result]
    ranked: list[Result]
    fallbacks: list[Result]
    chosen: Result | None = None
    looks: int = 0
    why: list[str] = field(default_factory=list)
    _open: list[Result] = field(default_factory=list)
    _answers: set[tuple[bytes, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.judge = QualityJudge(self.search.evaluator, self.original, self.search.rows_in_time)
        self.fresh_run = FreshRun(self.search)

    def run(self) -> None:
        """Examine the candidates in their order and choose the first that is confirmed."""
        ranked = tuple(self.ranked)
        for place, candidate in enumerate(ranked, 1):
            if self._is_fallback(candidate) and self._best_open() is not None:
                break
            tested, rival, against = self._examined(candidate, ranked[place:])
            if against:
                line = f"{tested.name} was not confirmed: {'; '.join(against)}."
                self._note(line, tested)
            elif tested.standing != "open":
                self.chosen = self._overtaken(tested, rival) or tested
                return
            else:
                self._open.append(tested)
                if not self._is_proved(rival, tested):
                    if speedup_proved(tested):
                        break
                    self.search.log.note("confirm", f"{tested.name} stays open", self.results)
        self.chosen = self._best_open()

    def _examined(
        self, candidate: Result, later: Sequence[Result]
    ) -> tuple[Result, Result | None, list[str]]:
        """Judge a candidate on the data and, where it holds, in a fresh run beside its rival."""
        tested, rival = self._looked_at(candidate), None
        against = self._objections(tested)
        if not against:
            tested, rival = self._measured_again(tested, _runner_up(candidate, later))
            against = self._fresh_objections(tested)
            if against:
                tested = replace(tested, standing="refuted")
        self._update(candidate, tested)
        return tested, rival, against

    def _looked_at(self, candidate: Result) -> Result:
        """Return a candidate with its quality, which is a look at the items that confirm.

        One that loses on each item what an earlier one lost cannot be lucky once more.
        """
        tested = self.judge.judged(candidate)
        parts = [item_drops(tested, self.original, part) for part in ("selection", "test")]
        drops = [drop for part in parts for drop in part]
        answers = tuple(drop.tobytes() for drop in drops if drop is not None)
        if len(answers) < len(drops) or answers not in self._answers:
            self.looks += 1
        self._answers.add(answers)
        return tested

    def _is_fallback(self, result: Result) -> bool:
        return any(result.name == form.name for form in self.fallbacks)

    def _is_proved(self, rival: Result | None, candidate: Result) -> bool:
        """Return whether the runner-up, which was as fast in the search, is proved to be faster."""
        if rival is None or rival.confirmation is None:
            return False
        mine, other = speedup(candidate), speedup(rival)
        as_fast = mine is not None and other is not None and tied(mine, other)
        return as_fast and speed_standing(rival.confirmation, self._required(rival)) == "proved"

    def _best_open(self) -> Result | None:
        """Return the best of those that stay open: proved once, or at least likely to be faster."""
        proved = [r for r in self._open if speedup_proved(r)]
        likely = [r for r in self._open if _likely(r)]
        return next(iter(proved or likely), None)

    def _required(self, result: Result) -> float:
        fallback = self._is_fallback(result)
        return required_speedup(self.search.constraints, is_fallback=fallback)

    def _update(self, old: Result, new: Result) -> None:
        """Replace a result by the one with the new evidence."""
        for kept in (self.results, self.ranked, self.fallbacks):
            kept[:] = [new if r.name == old.name else r for r in kept]

    def _note(self, line: str, candidate: Result) -> None:
        self.why.append(line)
        self.search.log.note("confirm", line, candidate=candidate.name)

    def _measured_again(
        self, candidate: Result, rival: Result | None
    ) -> tuple[Result, Result | None]:
        """Measure both again against the original, side by side, until the verdict stands."""
        if candidate.comparison is None or candidate.model is None:
            return candidate, None
        found = self.fresh_run.compared(candidate, rival, self._required(candidate))
        if rival is not None and len(found) > 1:
            rival = replace(rival, confirmation=found[1])
            self._update(rival, rival)
        standing = speed_standing(found[0], self._required(candidate))
        return replace(candidate, confirmation=found[0], standing=standing), rival

    def _overtaken(self, chosen: Result, rival: Result | None) -> Result | None:
        """Return the runner-up where it is clearly faster in the fresh run and confirmed as well.

        The run that ranked them may have been noisier; this one measured both side by side.
        """
        if rival is None or rival.confirmation is None or chosen.confirmation is None:
            return None
        clear = rival.confirmation.low > chosen.confirmation.high
        if not clear or self.search.constraints.goal not in TIMES:
            return None
        tested = replace(self._looked_at(rival), standing="proved")
        against = self._objections(tested) + self._fresh_objections(tested)
        self._update(rival, tested)
        if against:
            return None
        than = f"than {chosen.name} in the fresh run, beyond both intervals"
        self._note(f"{tested.name} was faster {than}.", tested)
        return tested

    def _objections(self, tested: Result) -> list[str]:
        """Return what speaks against a candidate on the data, and in the search."""
        lost = self.judge.objection(tested, self.looks)
        rest = objections(tested, self.original, self._without_drop(tested), "test")
        return [*([lost] if lost else []), *rest]

    def _without_drop(self, tested: Result) -> Constraints:
        """Return what is left of the constraints besides those that fresh evidence decides."""
        loose = replace(self.search.constraints, max_drop=sys.float_info.max)
        return loose if tested.comparison is None else replace(loose, min_speedup=None)

    def _fresh_objections(self, tested: Result) -> list[str]:
        """Return the constraints that a candidate violates for certain in the fresh run."""
        again = tested.confirmation
        if again is None:
            return []
        if again.error is not None:
            return [again.error]
        fresh = replace(tested, comparison=again)
        against = objections(fresh, self.original, self._without_drop(fresh), "test")
        required = self._required(tested)
        if speed_standing(again, required) == "refuted":
            ratio = speedup(fresh)
            than = "not faster" if required <= 1 else f"less than {required:g}x"
            against.append(f"in a fresh run it is {ratio}, {than}")
        return against


def speedup_proved(result: Result) -> bool:
    """Return whether the search had proved that a candidate is faster."""
    ratio = speedup(result)
    return ratio is not None and ratio.faster


def _likely(result: Result) -> bool:
    """Return whether a candidate that is proved nowhere looks faster wherever it was measured.

    An interval without ends speaks neither for it nor for the float model.
    """
    before, again = result.comparison, result.confirmation
    if before is None or before.ratio < HOPE:
        return False
    return again is None or isnan(again.ratio) or again.ratio >= HOPE


def _runner_up(candidate: Result, ranked: Sequence[Result]) -> Result | None:
    """Return the next best candidate that runs other kernels and was measured."""
    if candidate.model is None:
        return None
    own = kernels(candidate.subject)
    measured = (r for r in ranked if r.comparison is not None and r.model is not None)
    return next((r for r in measured if kernels(r.subject) != own), None)
