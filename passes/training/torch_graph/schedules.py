"""Learning rate schedules: shares of the highest rate, by the share of training done."""

from __future__ import annotations

import math
from collections.abc import Callable

#: Share of one-cycle in which the rate rises (Smith and Topin, "Super-Convergence", 2017).
RISE = 0.3


def _cosine(done: float) -> float:
    """Anneal by a half cosine (Loshchilov and Hutter, "SGDR", 2016)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def _steps(done: float) -> float:
    """Divide by ten at a half and again at three quarters (He et al., 2015)."""
    return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01


def _one_cycle(done: float) -> float:
    if done < RISE:
        return 0.04 + 0.96 * _cosine(1 - done / RISE)
    return _cosine((done - RISE) / (1 - RISE))


_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "step": _steps,
    "one-cycle": _one_cycle,
    "plateau": lambda _: 1.0,  # divided by the training loop
    "constant": lambda _: 1.0,
}


def learning_rate_share(schedule: str, done: float, warmup: float) -> float:
    """Return the learning rate as a share of the highest, after a linear rise in the warm-up.

    Args:
        schedule: name of the schedule.
        done: share of the training that is done, 0 to 1.
        warmup: share of the training before the schedule begins.
    """
    done = min(max(done, 0.0), 1.0)
    if done < warmup:
        return max(done / warmup, 0.01)
    return _SHAPES[schedule]((done - warmup) / (1 - warmup))
