"""A contender in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trimtab.core.model import Model
from trimtab.core.ort.accelerators import memory_of
from trimtab.core.ort.refusals import runtime_errors
from trimtab.core.ort.session import Feeds, SessionConfig

from ...machine.placement import Placement
from ..timing import Runs
from ..workers.caller import Caller, caller_of, placement_of
from ..workers.io_binding import device_config, open_session
from .pacing import stabilize


def without_spinning(config: SessionConfig) -> SessionConfig:
    """Return the configuration whose idle threads do not spin.

    Two sessions with spinning threads take CPUs from each other: with two threads each, alternating
    runs had a 95th percentile of 25 ms with spinning and 1.6 ms without.
    """
    return replace(config, spinning=False)


class InProcessContender:
    """A session without spinning in this process: no start-up cost, but a crash ends it all."""

    always_new = False

    def __init__(self, model: Model | Path, config: SessionConfig, name: str = "") -> None:
        self.name = name or str(model)
        self.worker = None  # all run in this process
        self.model, self.config = model, device_config(without_spinning(config), model)
        self.placement: Placement | None = None
        self.feeds: Feeds = {}
        self._caller: Caller | None = None

    def warm(self, feeds: Feeds) -> float:
        """See `Contender`."""
        self.feeds = dict(feeds)
        (first_ns,) = self.time(1).ns
        assert self._caller is not None
        self.placement = placement_of(self._caller, self.name)
        return float(first_ns)

    def renew(self) -> None:
        """See `Contender`."""
        self._caller = None  # its memory is free for the new one
        stabilize(self, on_device=memory_of(self.config.provider) is not None)

    def time(self, runs: int) -> Runs:
        """See `Contender`."""
        if self._caller is None:
            session = open_session(self.model, self.config, self.name)
            self._caller = caller_of(session, self.feeds, self.config)
        with runtime_errors(self.name):
            return self._caller.time(runs)

    def close(self) -> None:
        """Free the session."""
        self._caller = None
        self.feeds = {}
