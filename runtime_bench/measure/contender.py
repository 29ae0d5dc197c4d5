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
    """Timed runs of one arm, in order.

    Attributes:
        ns: latency of each.
        switches: involuntary context switches during each; empty where the system tells none.
    """

    ns: tuple[int, ...]
    switches: tuple[int, ...] = ()

    def after(self, discarded: int) -> Runs:
        """Without the first ones."""
        return Runs(self.ns[discarded:], self.switches[discarded:])


class Arm(Protocol):
    """A model ready to be timed. Every method but `close` may raise RunError.

    Attributes:
        name: for messages.
        host: the place its session lives in, which arms may exchange before they are renewed.
        placement: where its nodes are, known after `warm`; None for the CPU's own provider.
    """

    name: str
    host: Any
    placement: Placement | None

    def warm(self, feeds: Feeds) -> None:
        """Make the session, take the feeds, run once."""
        ...

    def renew(self) -> None:
        """Make the session anew, in the host that the arm has now, and run it a few times."""
        ...

    def time(self, runs: int) -> Runs:
        """Run that many times, one after the other."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


def exchange_hosts(arms: Sequence[Arm], rng: np.random.Generator) -> None:
    """Deal the arms' hosts out anew, at random."""
    hosts = [arm.host for arm in arms]
    for arm, index in zip(arms, rng.permutation(len(hosts)), strict=True):
        arm.host = hosts[index]
