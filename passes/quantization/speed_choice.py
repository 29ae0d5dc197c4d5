"""Integers or floats: which arithmetic a quantized model gets, by the clock.

Integers pay where they are faster. Where they are not, weights alone are stored in 8 bits, which
keeps more answers at float's speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from trimtab.core.batches import fitting
from trimtab.core.context import Ratio
from trimtab.core.dataset import Dataset
from trimtab.core.errors import TrimtabError
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig

from ..base import Pass
from .compress_weights import CompressWeights
from .file_size import plain_bytes
from .greedy_search import GreedySearch, quantization_notes
from .judge import MARGIN_OF_PROMISE, Verdict

#: Speed-up that a search for a mixture has to have a chance of.
WORTHWHILE = 1.05
#: Longest time for which int8 is timed to say whether to refine it, and the speed-ups that end it.
TIMED_SECONDS, DECIDED = 1.0, (1.0, WORTHWHILE)
#: Longest time to say whether a candidate is faster, or the best.
CANDIDATE_SECONDS = 3.0


class SpeedChoice:
    """Measured speed-ups of a search's models over float, each measured once.

    Args:
        search: the search.
        data: samples; the first one is fed.
    """

    def __init__(self, search: GreedySearch, data: Dataset) -> None:
        self.search, self.data = search, fitting(search.original, data, rows=1)
        self._timed: tuple[Model, Ratio | None] | None = None
        self._settled: Model | None = None  # measured for as long as it may take

    def of_best(self) -> Ratio | None:
        """Return the speed-up of the best so far over float; None without a clock or a change.

        A measurement that fails tells nothing, as one of too few runs does.
        """
        best, original = self.search.chosen, self.search.original
        if self._timed is None or self._timed[0] is not best:
            self._timed = best, None if best is original else self._measure(original, best)
        return self._timed[1]

    def is_as_slow(self) -> bool:
        """Return whether the best so far is not clearly faster than float.

        A short look says whether to refine it; what it left open is measured for longer, once.
        """
        ratio = self.of_best()
        if ratio is None or ratio.faster:
            return False
        best = self.search.chosen
        if not ratio.slower and self._settled is not best:
            self._settled = best
            ratio = self._measure(self.search.original, best, CANDIDATE_SECONDS, (1.0,))
            self._timed = best, ratio
        return ratio is not None and not ratio.faster

    def why_not_faster(self, candidate: Model) -> str:
        """Return the reason against a candidate that is for speed; "" where it is clearly faster.

        It is timed beside the best so far, or beside float where that is better to have.
        """
        original = self.search.original
        beside_float = not self.search.keeps_promise or self.is_as_slow()
        base = original if beside_float else self.search.chosen
        ratio = self._measure(base, candidate, CANDIDATE_SECONDS, (1.0,))
        if ratio is not None and not ratio.faster:
            return "it is not clearly faster"
        if beside_float:
            self._timed, self._settled = (candidate, ratio), candidate  # it becomes the best
        return ""

    def may_pay(self) -> bool:
        """Return whether integers may be faster than float by more than a little.

        Where layers have to stay float as well, which costs speed and long searches, the clock has
        to be sure of it.
        """
        ratio = self.of_best()
        if ratio is None or not self.search.keeps_promise:
            return self.pays()
        return ratio.high > WORTHWHILE

    def pays(self) -> bool:
        """Return whether the best so far is surely faster than float by more than a little."""
        ratio = self.of_best()
        return ratio is None or ratio.low > WORTHWHILE

    def _measure(
        self,
        base: Model,
        candidate: Model,
        seconds: float = TIMED_SECONDS,
        decided: tuple[float, ...] = DECIDED,
    ) -> Ratio | None:
        ctx = self.search.ctx
        if ctx.clock is None:
            return None
        ctx.progress.say("timing int8 against float")
        feeds, config = next(iter(self.data)).feeds, SessionConfig.of(ctx.target)
        try:
            return ctx.clock.compare(base, candidate, feeds, config, seconds, decided)
        except TrimtabError as failure:
            ctx.progress.say(f"not timed: {failure}")
            return Ratio(1.0, 0.0, math.inf)


def offer_faster(search: GreedySearch, name: str, speed: SpeedChoice, *passes: Pass) -> bool:
    """Take a candidate that keeps the promise and is clearly faster; true where that is so.

    Args:
        search: search whose best is changed.
        name: name of the step.
        speed: measured speed-ups.
        passes: those that make the candidate.
    """
    return search.compare(name, _WhyNotFaster(search, speed), *passes)


class _WhyNotFaster:
    """Reason against one candidate that is for speed."""

    def __init__(self, search: GreedySearch, speed: SpeedChoice) -> None:
        self.search, self.speed = search, speed
        self._timed: str | None = None  # as it is asked again when more rows have judged

    def __call__(self, candidate: Model, verdict: Verdict) -> str:
        if verdict.kept < self.search.promised:
            return "it keeps too little"
        mixed = quantization_notes(candidate).get("mixed")
        if mixed is not None and not mixed["float"]:
            return "int8 makes no layer slower"
        if self._timed is None:
            self._timed = self.speed.why_not_faster(candidate)
        return self._timed


def store_weights(
    search: GreedySearch, compress: Callable[[float], CompressWeights], speed: SpeedChoice
) -> None:
    """Store weights of float layers in 8 bits, and all of them where int8 is not faster.

    Args:
        search: search whose best is changed.
        compress: function from the fidelity to keep to the pass.
        speed: measured speed-ups.
    """
    keeps_none = search.chosen is search.original or not search.keeps_promise
    if keeps_none or speed.is_as_slow():
        why_not = _WhyNotFloat(search, speed)
        step = "float arithmetic, stored in 8 bits"
        if search.compare(step, why_not, compress(search.promised)):
            return
    if search.chosen is search.original:
        return
    # The answers to keep are the float model's, as losses of both steps are not a sum. What was
    # chosen on these samples keeps less on others: a half of what a mixture leaves is for that.
    wanted = search.promised + (1 - MARGIN_OF_PROMISE) * (1 - search.promised) / 2
    kept, size = min(search.verdict.kept, wanted), plain_bytes(search.chosen)

    def why_larger(candidate: Model, verdict: Verdict) -> str:
        if verdict.kept < kept:
            return "it keeps less"
        return "" if plain_bytes(candidate) < size else "its file is not smaller"

    step = "float layers stored in 8 bits"
    stored = compress(kept).with_fields(teacher=search.original)
    search.compare(step, why_larger, stored, of=search.chosen)


class _WhyNotFloat:
    """Reason against float arithmetic with stored weights beside the best so far."""

    def __init__(self, search: GreedySearch, speed: SpeedChoice) -> None:
        self.search, self.speed = search, speed

    def __call__(self, candidate: Model, verdict: Verdict) -> str:
        search = self.search
        if not search.keeps_promise:
            lower = verdict.shortfall(search.promised) < search.shortfall
            return "" if lower else "the error would not fall"
        if verdict.kept < search.promised:
            return "it keeps too little"
        smaller = plain_bytes(candidate) < plain_bytes(search.chosen)
        ratio = self.speed.of_best()
        slower = ratio is not None and ratio.slower
        return "" if smaller or slower else "its file is not smaller"
