"""A contender: a model that can be timed, as the sampler sees it."""

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
        switches: involuntary context switches during each; empty if the system does not count them.
    """

    ns: tuple[int, ...]
    switches: tuple[int, ...] = ()

    def after(self, discarded: int) -> Runs:
        """Return the runs without the first ones."""
        return Runs(self.ns[discarded:], self.switches[discarded:])


class Contender(Protocol):
    """A model ready to be timed. Every method except `close` may raise RunError.

    Attributes:
        name: name for messages.
        worker: where its session lives; contenders may exchange theirs before they are renewed.
        placement: placement of its nodes, known after `warm`; None for the CPU's own provider.
    """

    name: str
    worker: Any
    placement: Placement | None

    def warm(self, feeds: Feeds) -> None:
        """Build the session, take the feeds, run once."""

    def renew(self) -> None:
        """Build the session again, in the current worker, and run it a few times."""

    def time(self, runs: int) -> Runs:
        """Time a number of consecutive runs."""

    def close(self) -> None:
        """Free all resources."""


def exchange_workers(contenders: Sequence[Contender], rng: np.random.Generator) -> None:
    """Reassign the workers to the contenders at random."""
    workers = [contender.worker for contender in contenders]
    for contender, index in zip(contenders, rng.permutation(len(workers)), strict=True):
        contender.worker = workers[index]
