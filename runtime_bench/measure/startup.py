"""Startup costs of a model: load time, first run, memory, file; each in a fresh process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from trimtab.core.ort.accelerators import memory_of
from trimtab.core.ort.given_feeds import given_feeds
from trimtab.core.ort.session import Feeds, SessionConfig

from .contenders.subprocess_contender import SubprocessContender
from .subject import Startable, Subject, in_memory

#: Runs before the peak is read, since the arena grows in the first ones; one of a slow model.
RUNS = 3
SLOW_NS = 3e8


@dataclass(frozen=True)
class StartupCosts:
    """Startup costs of a model, one value per fresh process.

    Attributes:
        model: name or path.
        size_bytes: size of the file, including external data.
        load_ns: time to build the session, with the file in the system's cache.
        first_ns: time of the first inference.
        peak_bytes: peak resident set from before the load until after a few runs, above what
            Python and the runtime took before; it includes weights, arena and packed copies.
        bare_bytes: the same for sessions without the CPU's arena; empty if not measured.
    """

    model: str
    size_bytes: int
    load_ns: tuple[int, ...]
    first_ns: tuple[int, ...]
    peak_bytes: tuple[int, ...]
    bare_bytes: tuple[int, ...] = ()

    @property
    def median_load_ns(self) -> float:
        """Median load time over the processes."""
        return float(median(self.load_ns))

    @property
    def median_first_ns(self) -> float:
        """Median time of the first inference over the processes."""
        return float(median(self.first_ns))

    @property
    def median_peak_bytes(self) -> float:
        """Median peak memory over the processes."""
        return float(median(self.peak_bytes))

    @property
    def arena_bytes(self) -> float | None:
        """Memory of the CPU's arena beyond what the tensors need; None if not measured."""
        if not self.bare_bytes:
            return None
        return max(0.0, self.median_peak_bytes - float(median(self.bare_bytes)))

    def joined(self, more: StartupCosts) -> StartupCosts:
        """Return these costs and those of further processes of the same model."""
        return replace(
            self,
            load_ns=self.load_ns + more.load_ns,
            first_ns=self.first_ns + more.first_ns,
            peak_bytes=self.peak_bytes + more.peak_bytes,
            bare_bytes=self.bare_bytes + more.bare_bytes,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all fields, and the arena, as JSON values."""
        return {"arena_bytes": self.arena_bytes} | {
            k: list(v) if isinstance(v, tuple) else v for k, v in self.__dict__.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StartupCosts:
        """Read the startup costs that `to_json` wrote."""
        keys = ("load_ns", "first_ns", "peak_bytes", "bare_bytes")
        lists = [tuple(value.get(key, ())) for key in keys]
        return cls(value["model"], value["size_bytes"], *lists)


def startup_costs(
    model: Startable,
    feeds: Feeds | None = None,
    config: SessionConfig | None = None,
    *,
    processes: int = 3,
    arena: bool = False,
) -> StartupCosts:
    """Measure a model's startup costs in fresh processes, one after the other.

    With `arena` that of the arena too, in as many further processes without it. Feeds are random
    by default.

    Raises:
        InputError: the model cannot be used, or a dynamic axis has no size.
        RunError: the model was refused, crashed or hung.
    """
    subject = Subject.of(model)
    feeds = feeds if feeds is not None else given_feeds(in_memory(model))
    config = subject.config(config or SessionConfig())
    arena = arena and memory_of(config.provider) is None  # the other providers have their own
    found, bare = [], []
    for _ in range(processes):  # alternating, so that drift affects both
        found.append(_once(subject, feeds, config))
        if arena and config.arena:
            bare.append(_once(subject, feeds, replace(config, arena=False))[2])
    load, first, peak = zip(*found, strict=True)
    return StartupCosts(subject.name, subject.size_bytes, load, first, peak, tuple(bare))


def _once(subject: Subject, feeds: Feeds, config: SessionConfig) -> tuple[int, int, int]:
    with contextlib.closing(SubprocessContender(subject.onnx, config, subject.name)) as contender:
        contender.warm(feeds)
        assert contender.load_ns is not None
        assert contender.first_ns is not None
        contender.time(RUNS if contender.first_ns < SLOW_NS else 1)
        return contender.load_ns, contender.first_ns, contender.peak_bytes()
