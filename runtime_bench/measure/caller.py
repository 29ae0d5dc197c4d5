"""A session with what it is fed, ready to be called: on arrays, or on tensors of a device."""

from __future__ import annotations

from typing import Any, Protocol

from trimtab.core.ort.accelerators import memory_of
from trimtab.core.ort.session import Feeds, SessionConfig

from ..machine.placement import Placement
from .contender import Runs
from .io_binding import BoundCaller
from .timing import time_calls

#: Copies of each direction that are timed.
COPIES = 20


class Caller(Protocol):
    """Runs one session on one set of feeds."""

    def run(self) -> object:
        """Run once."""
        ...

    def time(self, runs: int) -> Runs:
        """Time that many runs in a row."""
        ...


class ArrayCaller:
    """`session.run` on arrays, as on a CPU everybody does.

    Args:
        session: of onnxruntime.
        feeds: arrays by input name.
    """

    def __init__(self, session: Any, feeds: Feeds) -> None:
        self._run = session.run
        self._names = [output.name for output in session.get_outputs()]
        self._feeds = dict(feeds)

    def run(self) -> object:
        """Run once."""
        return self._run(self._names, self._feeds)

    def time(self, runs: int) -> Runs:
        """Time that many runs, with nothing else inside."""
        run, names, feeds = self._run, self._names, self._feeds
        return time_calls(lambda: run(names, feeds), runs)


def caller_of(session: Any, feeds: Feeds, config: SessionConfig) -> Caller:
    """The way in which a provider's sessions are timed."""
    return (
        ArrayCaller(session, feeds)
        if memory_of(config.provider) is None
        else BoundCaller(session, feeds, config)
    )


def placement_of(caller: Caller, name: str) -> Placement | None:
    """Where the nodes of a caller that has run are; None for the CPU's own provider.

    Raises:
        RunError: all fell back.
    """
    return caller.placement(COPIES, name) if isinstance(caller, BoundCaller) else None
