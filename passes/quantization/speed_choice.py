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

from .compress_weights import CompressWeights
from .file_size import plain_bytes
from .greedy_search import GreedySearch
from .judge import Verdict

#: Speed-up that a search for a mixture has to have a chance of.
WORTHWHILE = 1.05
#: Longest time for which int8 is timed against float, and the speed-ups that end it once decided.
TIMED_SECONDS, DECIDED = 3.0, (1.0, WORTHWHILE)


class SpeedChoice:
    """Measured speed-ups of a search's models over float, each measured once.

    Args:
        search: the search.
        data: samples; the first one is fed.
    """

    def __init__(self, search: GreedySearch, data: Dataset) -> None:
        self.search, self.data = search, fitting(search.original, data, rows=1)
        self._timed: tuple[Model, Ratio | None] | None = None

    def of_best(self) -> Ratio | None:
        """Return the speed-up of the best so far over float; None without a clock or a change.

        A measurement that fails tells nothing, as one of too few runs does.
        """
        best = self.search.chosen
        if self._timed is None or self._timed[0] is not best:
            self._timed = best, self._measure(best)
        return self._timed[1]

    def may_pay(self) -> bool:
        """Return whether integers may be faster than float by more than a little.

        Where layers have to stay float as well, which costs speed and long searches, the clock has
        to be sure of it.
        """
        ratio = self.of_best()
        if ratio is None:
            return True
        return (ratio.high if self.search.keeps_promise else ratio.low) > WORTHWHILE

    def _measure(self, best: Model) -> Ratio | None:
        original, ctx = self.search.original, self.search.ctx
        if ctx.clock is None or best is original:
            return None
        ctx.progress.say("timing int8 against float")
        feeds, config = next(iter(self.data)).feeds, SessionConfig.of(ctx.target)
        try:
            return ctx.clock.compare(original, best, feeds, config, TIMED_SECONDS, DECIDED)
        except TrimtabError as failure:
            ctx.progress.say(f"not timed: {failure}")
            return Ratio(1.0, 0.0, math.inf)


def store_weights(
    search: GreedySearch, compress: Callable[[float], CompressWeights], speed: SpeedChoice
) -> None:
    """Store weights of float layers in 8 bits, and all of them where int8 is not faster.

    Args:
        search: search whose best is changed.
        compress: function from the fidelity to keep to the pass.
        speed: measured speed-ups.
    """
    ratio = speed.of_best()
    as_slow = ratio is not None and not ratio.faster
    if search.chosen is search.original or as_slow or not search.keeps_promise:
        why_not = _WhyNotFloat(search, ratio)
        step = "float arithmetic, stored in 8 bits"
        if search.compare(step, why_not, compress(search.promised)):
            return
    if search.chosen is search.original:
        return
    kept, size = min(search.verdict.kept, search.promised), plain_bytes(search.chosen)

    def why_larger(candidate: Model, verdict: Verdict) -> str:
        if verdict.kept < kept:
            return "it keeps less"
        return "" if plain_bytes(candidate) < size else "its file is not smaller"

    # What is left of the loss that was allowed is for these weights.
    left = min(max(1 - (search.verdict.kept - search.promised), search.promised), 1.0)
    step = "float layers stored in 8 bits"
    search.compare(step, why_larger, compress(left), of=search.chosen)


class _WhyNotFloat:
    """Reason against float arithmetic with stored weights beside the best so far."""

    def __init__(self, search: GreedySearch, ratio: Ratio | None) -> None:
        self.search, self.ratio = search, ratio

    def __call__(self, candidate: Model, verdict: Verdict) -> str:
        search = self.search
        if not search.keeps_promise:
            lower = verdict.shortfall(search.promised) < search.shortfall
            return "" if lower else "the error would not fall"
        if verdict.kept < search.promised:
            return "it keeps too little"
        smaller = plain_bytes(candidate) < plain_bytes(search.chosen)
        slower = self.ratio is not None and self.ratio.slower
        return "" if smaller or slower else "its file is not smaller"
