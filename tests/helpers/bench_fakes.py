"""Fake contenders and a fake clock for tests of the bench, so that no test depends on time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from trimtab.core.errors import RunError
from trimtab.core.ort.session import Feeds
from trimtab.runtime_bench.machine.placement import Placement
from trimtab.runtime_bench.measure.timing import Runs


@dataclass
class FakeClock:
    """A clock that advances only when a fake works."""

    at_ns: int = 0

    def __call__(self) -> int:
        return self.at_ns


@dataclass
class FakeContender:
    """A contender whose runs take `run_ns` with log-normal noise, on a fake clock."""

    clock: FakeClock
    run_ns: float = 1e6
    noise: float = 0.02
    name: str = "fake"
    seed: int = 0
    before: Callable[[int], None] = lambda _: None
    calls: list[int] = field(default_factory=list)
    fed: list[Feeds] = field(default_factory=list)
    closed: bool = False
    worker: object = None
    renewed: list[object] = field(default_factory=list)
    renew_ns: int = 0
    placement: Placement | None = None
    always_new: bool = False

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def warm(self, feeds: Feeds) -> float:
        self.fed.append(feeds)
        return self.run_ns

    def renew(self) -> None:
        self.renewed.append(self.worker)
        self.clock.at_ns += self.renew_ns

    def time(self, runs: int) -> Runs:
        self.before(len(self.calls))
        self.calls.append(runs)
        factors = np.exp(self.noise * self.rng.standard_normal(runs))
        ns = tuple(int(n) for n in np.maximum(1, self.run_ns * factors))
        self.clock.at_ns += sum(ns)
        return Runs(ns, (0,) * runs)

    def close(self) -> None:
        self.closed = True


def fails_at(call: int, error: BaseException | None = None) -> Callable[[int], None]:
    """Return a `before` that raises at a certain call of `time`."""

    def before(index: int) -> None:
        if index == call:
            raise error or RunError("its process died", where="fake", hint="Try another")

    return before
