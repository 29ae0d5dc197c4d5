"""Forecast of the time that a comparison takes, from a few runs of each of its contenders."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.core.text import duration_text

from ..machine.noise_check import Snapshot, check_noise
from .compare import open_contenders
from .pacing import OVERRUN, VERDICT_BLOCKS, fits
from .sampling import BlockPair, Sampler
from .subject import Subject, Timed

#: Blocks after which most comparisons have a verdict and an interval as narrow as the resolution.
USUAL_BLOCKS = 40


@dataclass(frozen=True)
class Forecast:
    """Time of a comparison and of its parts, in seconds.

    Attributes:
        run_seconds: a run of the slowest contender.
        warm_seconds: loading and warming up all of them.
        block_seconds: a block of every pair.
        blocks: number of blocks that fit into the time limit.
        noisy: true where other work disturbs, and a verdict takes all blocks or more.
    """

    run_seconds: float
    warm_seconds: float
    block_seconds: float
    blocks: int
    noisy: bool

    @property
    def seconds(self) -> float:
        """Time until most comparisons are decided, or until no further block fits."""
        blocks = self.blocks if self.noisy else min(self.blocks, USUAL_BLOCKS)
        return self.warm_seconds + blocks * self.block_seconds


def forecast(
    timed: Sequence[Timed], feeds: Feeds, config: SessionConfig, max_seconds: float, seed: int = 0
) -> Forecast:
    """Load and warm up what would be compared, and plan its blocks.

    Raises:
        RunError: one of them cannot be run.
    """
    subjects = [Subject.of(one) for one in timed]
    sampler = Sampler(np.random.default_rng(seed), time.monotonic_ns)
    start, before = time.monotonic(), Snapshot.now(config)
    with open_contenders(subjects, config, max_seconds, in_process=False) as contenders:
        base, *others = contenders
        pairs = [BlockPair(base, other) for other in others or [base]]
        sampler.prepare(pairs, feeds, max_seconds)
    for pair in pairs:
        if pair.error is not None:
            raise pair.error
    warm, block = time.monotonic() - start, sampler.round_ns / 1e9
    blocks = int(max(0.0, (1 + OVERRUN) * max_seconds - warm) / block)
    if not blocks and fits(sampler.round_ns, max_seconds - warm, max_seconds, first=True):
        blocks = 1
    noisy = not check_noise(before, Snapshot.now(config)).fit
    return Forecast(sampler.run_ns / 1e9, warm, block, blocks, noisy)


def forecast_lines(found: Forecast, opened: float, startup: float, max_seconds: float) -> list[str]:
    """Format a forecast, with the seconds for opening the models and for startup costs."""
    run, block, warm, limit, cards = (
        duration_text(seconds * 1e9)
        for seconds in (
            found.run_seconds,
            found.block_seconds,
            found.warm_seconds,
            max_seconds,
            startup,
        )
    )
    lines = [f"a run takes up to {run}; loading and warming up took {warm}"]
    if found.blocks == 0:
        lines.append(f"not even one pair of runs fits into --max-time {limit}: it would be refused")
        return lines
    few = (
        "" if found.blocks >= VERDICT_BLOCKS else f", and a verdict takes {VERDICT_BLOCKS} or more"
    )
    lines.append(f"a block takes {block}: {found.blocks} fit into --max-time {limit}{few}")
    if startup:
        lines.append(f"startup costs take {cards}, as far as they fit into the time")
    total = duration_text(min(max_seconds, opened + found.seconds + startup) * 1e9)
    why = " (other work disturbs: a verdict may take all of it)" if found.noisy else ""
    lines.append(f"the whole takes about {total}{why}")
    return lines
