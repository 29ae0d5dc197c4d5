"""Search for the fastest rewrites: screen all candidates, confirm the promising, check the sum.

First every rule at all of its sites, then, where the sites of a rule differ, group by group: kept
rules without a group, others at one group alone. Everything is measured on the whole model, since
the gain of a rewrite depends on the operators around it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from trimtab.core.context import Ratio
from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.progress import Progress, Silent

from ..rewrites import find_rewrite_rule
from .cache import Cache
from .candidates import Candidate, Choice, build
from .judge import CandidateJudge, Screening
from .trials import Trial, TrialBudget

#: Share of the time for screening, and for the final check of the combination.
SCREEN_SHARE, FINAL_SHARE = 0.3, 0.2
#: Least screened gain that deserves a confirmation, and the least with other goals than time.
WORTH, BEARABLE = 1.005, 0.97
#: An interval within this ratio of one is a negligible difference.
SAME = 1.05
#: Share of a measurement's time for measuring; the rest builds sessions and warms up.
MEASURING = 0.85
#: Least share of the remaining time for a confirmation: the best candidates deserve a decision,
#: and the clock stops early once there is one.
LEAST_SHARE = 0.4
#: Least time of one confirmation, in seconds.
LEAST_SECONDS = 0.5
#: What a verdict says of a choice that nothing speaks against, and the one where time was over.
LEFT = "left as it was"
OVERTIME = f"{LEFT}: the time was over"


@dataclass
class RewriteSearch:
    """Search for the choices that are faster beyond doubt.

    Attributes:
        original: model with inferred shapes.
        judge: comparison of candidates.
        budget: time limit.
        cache: gains from earlier runs.
        progress: receiver of messages.
        trusted: rules that won wherever they were measured: confirmed first, without screening.
        kept: choices that are kept so far, in order.
        trials: all choices that were tried.
        current: original with the choices that are kept.
        last: speed-up of the choice that was kept last over those kept before it.
    """

    original: Model
    judge: CandidateJudge
    budget: TrialBudget
    cache: Cache
    progress: Progress = field(default_factory=Silent)
    trusted: Collection[str] = ()
    kept: tuple[Choice, ...] = ()
    trials: list[Trial] = field(default_factory=list)
    current: Model = field(init=False)
    last: Ratio | None = None
    _candidates: dict[str, Candidate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.current = self.original

    def run(
        self,
        found: Sequence[Candidate],
        *,
        asked: bool,
        look: Callable[[Model], Sequence[Candidate]] = lambda _: (),
    ) -> Ratio | None:
        """Try all that time allows; return the speed-up of the whole, None where nothing is kept.

        Args:
            found: rules with sites.
            asked: true where the user named the rules, so that known losers are tried again.
            look: function that finds rules with sites after some were kept, which may open others.
        """
        self._try(found, asked=asked)
        opened = self._opened(look(self.current)) if self.kept else []
        self._try(opened, asked=asked)
        self._round(self._finer([*found, *opened]))
        return self._final()

    def _try(self, found: Sequence[Candidate], *, asked: bool) -> None:
        self._candidates |= {c.rule: c for c in found}
        promising = self._promising(found, asked=asked)
        first = [c for c in promising if self._expected(c)] if self.judge.goal == "latency" else []
        others = len(promising) > len(first)  # these need time as well
        for rank, candidate in enumerate(first):
            self._confirm(Choice(candidate.rule), None, remaining=len(first) - rank + others)
        self._round([Choice(c.rule) for c in promising if c not in first])

    def _expected(self, candidate: Candidate) -> bool:
        """Return whether a rule won at such sites before, or everywhere."""
        known = self.cache.known(candidate.rule, candidate.shapes)
        return candidate.rule in self.trusted if known is None else known.faster

    def _opened(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Return the rules that had no site before, without inverses of rules that are kept."""
        kept = {choice.rule for choice in self.kept}
        back = {find_rewrite_rule(name).back for name in kept}
        return [
            c
            for c in found
            if c.rule not in {*self._candidates, *back}
            and find_rewrite_rule(c.rule).back not in kept
        ]

    def _promising(self, found: Sequence[Candidate], *, asked: bool) -> list[Candidate]:
        """Sort known winners first, and leave out rules that are known to be slower."""
        known = {c.rule: self.cache.known(c.rule, c.shapes) for c in found}
        tried = []
        for candidate in found:
            before = known[candidate.rule]
            if before is not None and before.slower and not asked:
                why = f"was slower at such sites before ({before}); name it in `rules` to try again"
                self._note(Choice(candidate.rule), None, None, why)
            else:
                tried.append(candidate)
        return sorted(tried, key=lambda c: -(r.value if (r := known[c.rule]) else 1.0))

    def _finer(self, found: Sequence[Candidate]) -> list[Choice]:
        """Return changes of one group of alike sites, where the sites of a rule differ."""
        kept = {choice.rule for choice in self.kept}
        # A rule that failed for another reason than time fails at a part of its sites too.
        slow = {t.choice.rule for t in self.trials if "dropped" not in t.verdict} - kept
        changes: list[Choice] = []
        for candidate in found:
            groups = candidate.shapes if len(candidate.shapes) > 1 else ()
            if candidate.rule in kept:
                changes += [Choice(candidate.rule, without=frozenset({g})) for g in groups]
            elif candidate.rule in slow:
                changes += [Choice(candidate.rule, only=frozenset({g})) for g in groups]
        return changes

    def _round(self, changes: Sequence[Choice]) -> None:
        """Screen the changes, then confirm the promising ones, the best first."""
        made = [(c, m) for c in changes if (m := build(self.original, _with(self.kept, c)))]
        usable = self._usable()
        if usable < LEAST_SECONDS:
            for change in (c for c, _ in made if not c.only and not c.without):
                self._note(change, None, None, OVERTIME)
            return
        if not made:
            return
        self.progress.say(f"screening {len(made)} rewrites")
        screened = self._screen([m for _, m in made], usable * SCREEN_SHARE)
        changed = [c for c, _ in made]
        order = sorted(zip(screened.gains, changed, strict=True), key=lambda pair: -pair[0])
        limit = (WORTH if self.judge.goal == "latency" else BEARABLE) / screened.doubt
        promising = sum(gain >= limit for gain in screened.gains)
        for rank, (gain, change) in enumerate(order):
            if gain < limit:
                self._note(change, gain, None, "no gain")
            else:
                self._confirm(change, gain, remaining=promising - rank)

    def _usable(self) -> float:
        """Return the seconds before the final check, which one choice alone does not need."""
        return self.budget.left - (FINAL_SHARE * self.budget.seconds if self.kept else 0.0)

    def _screen(self, models: Sequence[Model], seconds: float) -> Screening:
        """Measure rough gains; a model that cannot run counts as a loss and stops no other."""
        try:
            return self.judge.screen(self.current, models, seconds)
        except RunError:
            if len(models) == 1:
                return Screening([0.0])
            apart = [self._screen([model], seconds / len(models)) for model in models]
            gains = [gain for one in apart for gain in one.gains]
            return Screening(gains, max(one.doubt for one in apart))

    def _confirm(self, choice: Choice, gain: float | None, *, remaining: int) -> None:
        """Measure a choice on top of what is kept, and keep it where it is better."""
        usable = self._usable()
        if usable < LEAST_SECONDS:
            self._note(choice, gain, None, OVERTIME)
            return
        choices = _with(self.kept, choice)
        candidate = build(self.original, choices)
        if candidate is None:
            self._note(choice, gain, None, "nothing left to rewrite after the rules kept")
            return
        objection = self.judge.objection(self.original, self.current, candidate)
        if objection:
            self._note(choice, gain, None, objection)
            return
        self.progress.say(f"measuring {choice}")
        share = usable * max(1 / max(1, remaining), LEAST_SHARE)
        try:
            ratio = self.judge.compare(self.current, candidate, MEASURING * share)
        except RunError as refused:
            self._note(choice, gain, None, f"dropped: {refused.what}")
            return
        self.cache.learn(choice.rule, self._shapes(choice), ratio)
        if self.judge.improves(self.current, candidate, ratio):
            self.kept, self.current, self.last = choices, candidate, ratio
            self._note(choice, gain, ratio, "kept")
        else:
            self._note(choice, gain, ratio, _loss(ratio))

    def _shapes(self, choice: Choice) -> list[str]:
        """Return the shape of each site that a choice covers."""
        sites = self._candidates[choice.rule].sites
        return [site.shape for site in sites if choice.covers(site.shape)]

    def _final(self) -> Ratio | None:
        """Compare the combination with the original; give it up where it is not better."""
        if len([t for t in self.trials if t.verdict == "kept"]) < 2:
            return self.last  # one choice was measured against the original itself
        self.progress.say("checking the combination against the original")
        seconds = max(self.budget.left, LEAST_SECONDS) * MEASURING
        ratio = self.judge.compare(self.original, self.current, seconds)
        if self.judge.improves(self.original, self.current, ratio):
            return ratio
        for choice in self.kept:
            why = "given up: all together are not better beyond doubt"
            self.trials.append(Trial(choice, 0, None, ratio, why))
        self.kept, self.current = (), self.original
        return None

    def _note(self, choice: Choice, gain: float | None, ratio: Ratio | None, verdict: str) -> None:
        self.trials.append(Trial(choice, len(self._shapes(choice)), gain, ratio, verdict))


def _loss(ratio: Ratio) -> str:
    """Return the verdict on a choice that is not kept."""
    if ratio.slower:
        return "slower"
    if ratio.low > 1 / SAME and ratio.high < SAME:
        return "no difference"
    return f"inconclusive, {LEFT}"


def _with(kept: Sequence[Choice], change: Choice) -> tuple[Choice, ...]:
    """Return the kept choices with one added, or merged into the one of the same rule."""
    if any(c.rule == change.rule for c in kept):
        return tuple(c.merged(change) if c.rule == change.rule else c for c in kept)
    return (*kept, change)
