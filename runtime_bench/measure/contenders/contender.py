"""A contender: whatever can be timed, as the sampler sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from trimtab.core.ort.session import Feeds

from ...machine.placement import Placement
from ..timing import Runs


class Contender(Protocol):
    """A model or program ready to be timed. Every method except `close` may raise RunError.

    Attributes:
        name: name for messages.
        worker: where its session lives; contenders may exchange theirs before they are renewed.
        placement: placement of its nodes, known after `warm`; None for the CPU's own provider.
        always_new: true where each slot is a new process anyway, and renewing does nothing.
    """

    name: str
    worker: Any
    placement: Placement | None
    always_new: bool

    def warm(self, feeds: Feeds) -> float:
        """Build the session, take the feeds, run once; return the nanoseconds of that run."""

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
