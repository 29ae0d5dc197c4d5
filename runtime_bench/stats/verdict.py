"""Verdicts from evidence: better, worse, same, or inconclusive."""

from __future__ import annotations

import math
from typing import Literal

from .e_process import PairedTest

#: A candidate against its base.
Verdict = Literal["better", "worse", "same", "inconclusive"]
#: A model against a budget.
LimitVerdict = Literal["pass", "fail", "inconclusive"]


def evidence(test: PairedTest, resolution: float) -> dict[str, float]:
    """Return the largest ln E so far of the four claims that verdicts rest on."""
    band = math.log1p(resolution)
    return {
        "better": test.evidence_above(0.0),
        "worse": test.evidence_below(0.0),
        "above -resolution": test.evidence_above(-band),
        "below +resolution": test.evidence_below(band),
    }


def decide(test: PairedTest, *, alpha: float, resolution: float, renewed: bool = True) -> Verdict:
    """Decide the verdict on a candidate after any number of blocks.

    Better and worse share alpha, so each decides at ln(2 / alpha), as do the two ends of the
    interval. A difference that is proved, and proved to be within the resolution as well, is
    reported as a difference; its interval shows how small it is. ("Same" is the two one-sided tests
    of Schuirmann 1987, each an e-process.)

    Where one pair of sessions served all blocks (not `renewed`), a difference must exceed the
    resolution to be reported: a smaller one may come from where the memory of the two lies.
    """
    limit = math.log(2 / alpha)
    known = evidence(test, resolution)
    band = 0.0 if renewed else math.log1p(resolution)
    better, worse = test.evidence_above(band), test.evidence_below(-band)
    if max(better, worse) >= limit:
        return "better" if better >= worse else "worse"
    if known["above -resolution"] >= limit and known["below +resolution"] >= limit:
        return "same"
    return "inconclusive"


def interval(test: PairedTest, *, alpha: float, resolution: float) -> tuple[float, float]:
    """Return (low, high) of the ratio at the stop: the confidence sequence, cut at the verdict.

    A boundary once rejected stays rejected (the running intersection of a confidence sequence is a
    confidence sequence), so the interval never contradicts the verdict. Where the noise changed
    afterwards, so that the estimate left it, it is widened to the estimate, on that side of 1.
    """
    low, high = test.interval(alpha)
    limit, band = math.log(2 / alpha), math.log1p(resolution)
    for boundary in (-band, 0.0, band):
        if test.evidence_above(boundary) >= limit:
            low = max(low, boundary)
        if test.evidence_below(boundary) >= limit:
            high = min(high, boundary)
    high = max(low, high)
    estimate = test.estimate() if test.blocks else low
    lowest, highest = (0.0 if low >= 0 else -math.inf), (0.0 if high <= 0 else math.inf)
    low, high = min(low, max(estimate, lowest)), max(high, min(estimate, highest))
    return math.exp(low), math.exp(high)


def is_decided(test: PairedTest, *, alpha: float, resolution: float, renewed: bool = True) -> bool:
    """Return whether there is a verdict, and an interval within the resolution on each side."""
    if decide(test, alpha=alpha, resolution=resolution, renewed=renewed) == "inconclusive":
        return False
    low, high = test.interval(alpha)
    return high - low <= 2 * math.log1p(resolution)
