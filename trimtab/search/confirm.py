"""The last word: the best candidate on data, and in a run, that nothing was chosen on.

The best of many estimates is too good by the luck that made it the best (the winner's curse), so
neither the quality nor the speed-up that chose it is what is told at the end.
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
class Confirmed:
    """What was confirmed.

    Attributes:
        results: all candidates, those that were looked at with what was found.
        ranked: from best to worst, the same.
        fallback: the simplified float model, the same.
        chosen: the first that held; None where none did.
        looks: how many were looked at on the test part.
        why: what was found against those before.
    """

    results: list[Result]
    ranked: list[Result]
    fallback: Result | None
    chosen: Result | None = None
    looks: int = 0
    why: list[str] = field(default_factory=list)

    def update(self, old: Result, new: Result) -> None:
        """Put what was found in the place of what was known."""
        for kept in (self.results, self.ranked):
            kept[:] = [new if r.name == old.name else r for r in kept]
        if self.fallback is not None and self.fallback.name == old.name:
            self.fallback = new


def confirm(
    search: Search, original: Result, ranked: Sequence[Result], fallback: Result | None
) -> Confirmed:
    """Look at candidates from the best on, until one holds on fresh evidence."""
    state = Confirmed(list(search.results), list(ranked), fallback)
    for candidate in ranked:
        rival = None
        state.looks += 1
        tested = search.evaluator.confirmed(candidate)
        against = objections(tested, original, search.constraints, "test")
        if not against:
            rival = _runner_up(candidate, ranked[state.looks :])
            tested, rival = _measured_again(search, tested, rival, state)
            against = _fresh_objections(search, original, tested, fallback)
        state.update(candidate, tested)
        if not against:
            state.chosen = _overtaken(search, original, tested, rival, state) or tested
            return state
        line = f"{tested.name} was not confirmed on the test part: {'; '.join(against)}."
        state.why.append(line)
        search.log.note("confirm", line, candidate=tested.name)
    return state


def _runner_up(candidate: Result, ranked: Sequence[Result]) -> Result | None:
    """The next best that runs other kernels and was measured."""
    if candidate.model is None:
        return None
    own = structure(candidate.model)
    others = (r for r in ranked if r.comparison is not None and r.model is not None)
    return next((r for r in others if r.model is not None and structure(r.model) != own), None)


def _measured_again(
    search: Search, candidate: Result, rival: Result | None, state: Confirmed
) -> tuple[Result, Result | None]:
    """Both measured anew against the original, side by side."""
    if candidate.comparison is None or candidate.model is None:
        return candidate, None
    models = [candidate.model]
    if rival is not None and rival.model is not None:
        models.append(rival.model)
    found = search.timer.again(models, SECONDS_EACH * len(models))
    for result, comparison in zip([candidate, rival], found, strict=False):
        if result is None:
            continue
        search.log.note(
            "confirm",
            f"{result.name} in a fresh run: {comparison.ratio:.2f}x "
            f"[{comparison.low:.2f}, {comparison.high:.2f}]",
            candidate=result.name,
            speedup=[comparison.ratio, comparison.low, comparison.high],
        )
    if rival is not None and len(found) > 1:
        rival = replace(rival, confirmation=found[1])
        state.update(rival, rival)
    return replace(candidate, confirmation=found[0]), rival


def _overtaken(
    search: Search, original: Result, chosen: Result, rival: Result | None, state: Confirmed
) -> Result | None:
    """The runner-up, where it is faster in the fresh run beyond both intervals, and holds too.

    What ranked them may have been a noisier run; this one measured both side by side.
    """
    if rival is None or rival.confirmation is None or chosen.confirmation is None:
        return None
    clear = rival.confirmation.low > chosen.confirmation.high
    if not clear or search.constraints.goal != "latency":
        return None
    state.looks += 1
    tested = search.evaluator.confirmed(rival)
    against = objections(tested, original, search.constraints, "test")
    against += _fresh_objections(search, original, tested, state.fallback)
    state.update(rival, tested)
    if against:
        return None
    line = f"{tested.name} was faster than {chosen.name} in the fresh run, beyond both intervals."
    state.why.append(line)
    search.log.note("confirm", line, candidate=tested.name)
    return tested


def _fresh_objections(
    search: Search, original: Result, tested: Result, fallback: Result | None
) -> list[str]:
    """What the fresh run says against a candidate."""
    if tested.confirmation is None:
        return []
    fresh = replace(tested, comparison=tested.confirmation)
    if fresh.comparison is not None and fresh.comparison.error:
        return [fresh.comparison.error]
    against = objections(fresh, original, search.constraints, "test")
    ratio = speedup(fresh)
    needs_speed = search.constraints.goal == "latency" and not (
        fallback is not None and tested.name == fallback.name
    )
    if needs_speed and ratio is not None and not ratio.faster:
        against.append(f"in a fresh run it is {ratio}, not faster for certain")
    return against
