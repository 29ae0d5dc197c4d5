"""A sequential test of "it loses too much", so that a bad candidate costs few items.

The drops d_i of single items lie in [-1, 1] times a known range. For a limit m, the capital of a
gambler who bets on a larger mean, K_t = prod(1 + b (d_i - m)) with a bet b >= 0 so small that no
outcome ruins him, is a non-negative supermartingale as long as the true mean is at most m; by
Ville's inequality K_t ever reaches 1 / alpha with probability alpha at most. (Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024.) Bets are a
fixed mixture, so the capital does not depend on the order within a batch of randomly drawn items.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from trimtab.core.data import Floats

#: Bets as shares of the largest that cannot ruin: small ones find small excesses, late.
BETS = (0.02, 0.05, 0.1, 0.2, 0.4)


def evidence(drops: Floats, limit: float, spread: float = 1.0) -> float:
    """Return the logarithm of the capital for "the mean drop is above the limit".

    Args:
        drops: losses of items drawn at random, each within `spread` of 0.
        limit: mean drop that is allowed.
        spread: largest difference of two scores.
    """
    if not len(drops):
        return 0.0
    room = spread + limit  # the furthest that a drop can fall below the limit
    logs = [float(np.log1p(share / room * (drops - limit)).sum()) for share in BETS]
    return float(np.logaddexp.reduce(logs)) - math.log(len(BETS))


def loses(drops: Floats, limit: float, alpha: float, spread: float = 1.0) -> bool:
    """Return whether too large a loss is proved, at error rate alpha whenever it is asked."""
    return evidence(drops, limit, spread) >= math.log(1 / alpha)


def clearly_above(drops: Floats, limit: float, alpha: float) -> bool:
    """Return whether a drop exceeds the limit by more than its resampling error explains.

    Args:
        drops: loss on the data as they are, then on resamples of them.
        limit: drop that is allowed.
        alpha: error rate, by the normal approximation.
    """
    error = float(np.std(drops[1:], ddof=1))
    return float(drops[0]) - NormalDist().inv_cdf(1 - alpha) * error > limit
