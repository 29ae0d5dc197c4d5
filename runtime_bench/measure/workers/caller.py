"""A session with its feeds, ready to be called: on arrays, or on tensors of a device."""

from __future__ import annotations

from typing import Any, Protocol

from trimtab.core.ort.accelerators import memory_of
from trimtab.core.ort.session import Feeds, SessionConfig

from ...machine.placement import Placement
from ..timing import Runs, time_calls
from .io_binding import BoundCaller

#: Timed copies in each direction.
COPIES = 20


class Caller(Protocol):
    """Runs one session on one set of feeds."""

    def run(self) -> object:
        """Run once."""

    def time(self, runs: int) -> Runs:
        """Time a number of consecutive runs."""


class ArrayCaller:
    """`session.run` on arrays by input name, as on a CPU."""

    def __init__(self, session: Any, feeds: Feeds) -> None:
        self._run = session.run
        self._names = [output.name for output in session.get_outputs()]
        self._feeds = dict(feeds)

    def run(self) -> object:
        """Run once."""
        return self._run(self._names, self._feeds)

    def time(self, runs: int) -> Runs:
        """Time a number of consecutive runs, with nothing else in between."""
        run, names, feeds = self._run, self._names, self._feeds
        return time_calls(lambda: run(names, feeds), runs)


def caller_of(session: Any, feeds: Feeds, config: SessionConfig) -> Caller:
    """Return the caller that suits a provider: on arrays, or with bound tensors of a device."""
    if memory_of(config.provider) is None:
        return ArrayCaller(session, feeds)
    return BoundCaller(session, feeds, config)


def placement_of(caller: Caller, name: str) -> Placement | None:
    """Return the placement of a caller's nodes, after a run; None for the CPU's own provider.

    Raises:
        RunError: all nodes fell back to the CPU.
    """
    return caller.placement(COPIES, name) if isinstance(caller, BoundCaller) else None
