"""What the sampler needs to know of a model that can be timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trimtab.core.ort.session import Feeds

from ..machine.placement import Placement


@dataclass(frozen=True)
class Runs:
    """Timed runs of one contender, in order.

    Attributes:
        ns: latency of each.
        switches: involuntary context switches during each; empty where the system tells none.
    """

    ns: tuple[int, ...]
    switches: tuple[int, ...] = ()

    def after(self, discarded: int) -> Runs:
        """Without the first ones."""
        return Runs(self.ns[discarded:], self.switches[discarded:])


class Contender(Protocol):
    """A model ready to be timed. Every method but `close` may raise RunError.

    Attributes:
        name: for messages.
        worker: where its session lives; contenders may exchange theirs before they are renewed.
        placement: where its nodes are, known after `warm`; None for the CPU's own provider.
    """

    name: str
    worker: Any
    placement: Placement | None

    def warm(self, feeds: Feeds) -> None:
        """Make the session, take the feeds, run once."""
        ...

    def renew(self) -> None:
        """Make the session anew, in the worker that it has now, and run it a few times."""
        ...

    def time(self, runs: int) -> Runs:
        """Run that many times, one after the other."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


def exchange_workers(contenders: Sequence[Contender], rng: np.random.Generator) -> None:
    """Deal the contenders' workers out anew, at random."""
    workers = [contender.worker for contender in contenders]
    for contender, index in zip(contenders, rng.permutation(len(workers)), strict=True):
        contender.worker = workers[index]
