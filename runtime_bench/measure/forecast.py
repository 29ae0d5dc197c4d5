"""Forecast of the time that a comparison takes, from its first blocks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.core.text import duration_text

from ..stats.e_process import PairedTest
from .compare import open_contenders
from .contenders.pacing import OVERRUN, VERDICT_BLOCKS
from .sampling import BlockPair, Sampler
from .subject import Subject, Timed

#: Blocks that are tried, if a quarter of the time suffices for them.
TRIED, TRIED_SHARE = 40, 0.25
#: Blocks until there is a verdict and an interval within the resolution: the first, and the second
#: for each variance of a block in units of the resolution. Fitted to simulations at 1% error.
USUAL_BLOCKS, BLOCKS_PER_VARIANCE = 13.0, 15.5


@dataclass(frozen=True)
class Forecast:
    """Time of a comparison and of its parts, in seconds.

    Attributes:
        run_seconds: a run of the slowest contender.
        warm_seconds: loading and warming up all of them.
        block_seconds: a block of every pair.
        blocks: number of blocks that fit into the time limit.
        needed: number of blocks after which it is decided, by how much the first ones vary.
    """

    run_seconds: float
    warm_seconds: float
    block_seconds: float
    blocks: int
    needed: int

    @property
    def seconds(self) -> float:
        """Time until it is decided, or until no further block fits."""
        return self.warm_seconds + min(self.blocks, self.needed) * self.block_seconds


def forecast(
    timed: Sequence[Timed],
    feeds: Feeds,
    config: SessionConfig,
    max_seconds: float,
    *,
    resolution: float = 0.05,
    seed: int = 0,
) -> Forecast:
    """Load and warm up what would be compared, and try a few blocks.

    Raises:
        RunError: one of them cannot be run, or not even one block fits into the time.
    """
    subjects = [Subject.of(one) for one in timed]
    sampler = Sampler(np.random.default_rng(seed), time.monotonic_ns)
    start = time.monotonic()
    enough = start + TRIED_SHARE * max_seconds
    with open_contenders(subjects, config, max_seconds, in_process=False) as contenders:
        base, *others = contenders
        pairs = [BlockPair(base, other) for other in others or [base]]

        def tried(test: PairedTest) -> bool:
            late = time.monotonic() > enough and test.blocks > 0
            return late or test.blocks >= TRIED

        for _ in sampler.blocks(pairs, feeds, seconds=max_seconds, until=tried):
            pass
    for pair in pairs:
        if pair.error is not None:
            raise pair.error
    gone, block = time.monotonic() - start, sampler.round_ns / 1e9
    done = max(pair.test.blocks for pair in pairs)
    left = max(0.0, (1 + OVERRUN) * max_seconds - gone)
    return Forecast(
        sampler.run_ns / 1e9,
        max(0.0, gone - done * block),
        block,
        done + int(left / block),
        max(_needed(pair.test.log_ratios, resolution) for pair in pairs),
    )


def _needed(log_ratios: Sequence[float], resolution: float) -> int:
    """Return the number of blocks until a pair is decided, by how much its first ones vary."""
    if len(log_ratios) < 2:
        return VERDICT_BLOCKS
    variance = statistics.variance(log_ratios) / resolution**2
    return max(VERDICT_BLOCKS, round(USUAL_BLOCKS + BLOCKS_PER_VARIANCE * variance))


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
    total = duration_text(min(max_seconds, opened + found.seconds + startup) * 1e9)
    enough = "all that fit" if found.needed > found.blocks else "it ends then"
    lines = [
        f"a run takes up to {run}; loading and warming up take {warm}",
        f"a block takes {block}: {found.blocks} fit into --max-time {limit}, a verdict takes about "
        f"{found.needed}: {enough}",
    ]
    if startup:
        lines.append(f"startup costs take {cards}, as far as they fit into the time")
    return [*lines, f"the whole takes about {total}"]
