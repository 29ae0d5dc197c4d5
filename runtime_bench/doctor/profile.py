"""Profile of a session: shares of the time by node and by operator.

Profiling slows every node (43 -> 94 us for a graph of seven), so it has its own session, and only
shares are reported. Runs of the warm-up are dropped.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds, SessionConfig, build_session, run

WARM_RUNS = 3
MOST_RUNS = 30
SECONDS = 1.0
_KERNEL = "_kernel_time"


@dataclass(frozen=True)
class NodeTime:
    """Time of one node of the running graph: the median over the runs, with the profiler's cost."""

    name: str
    op_type: str
    provider: str
    ns: float


@dataclass(frozen=True)
class Profile:
    """Times of all nodes of a model."""

    nodes: tuple[NodeTime, ...]

    @property
    def total_ns(self) -> float:
        """Sum over the nodes."""
        return sum(node.ns for node in self.nodes)

    def share(self, nodes: Iterable[NodeTime]) -> float:
        """Return the share of these nodes in the time, 0 to 1."""
        total = self.total_ns
        return sum(node.ns for node in nodes) / total if total else 0.0

    @functools.cached_property
    def by_name(self) -> dict[str, float]:
        """Share of each node in the time."""
        total = self.total_ns or 1.0
        found: dict[str, float] = {}
        for node in self.nodes:
            found[node.name] = found.get(node.name, 0.0) + node.ns / total
        return found

    def by_op(self) -> dict[str, tuple[int, float]]:
        """Return the number of nodes and the share of the time by operator, the slowest first."""
        found: dict[str, list[NodeTime]] = {}
        for node in self.nodes:
            found.setdefault(node.op_type, []).append(node)
        shares = {op: (len(nodes), self.share(nodes)) for op, nodes in found.items()}
        return dict(sorted(shares.items(), key=lambda item: -item[1][1]))


def profile(model: Model, config: SessionConfig, feeds: Feeds) -> Profile:
    """Profile a model in its own session.

    Raises:
        RunError: onnxruntime refuses the model or the feeds.
    """
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        session = build_session(model, config, profile_to=Path(folder) / "profile")
        end = time.monotonic() + SECONDS
        for count in range(WARM_RUNS + MOST_RUNS):
            run(session, feeds)
            if count > WARM_RUNS and time.monotonic() > end:
                break
        events = json.loads(Path(session.end_profiling()).read_text())
    return parse(events)


def parse(events: Iterable[Mapping[str, Any]], warm_runs: int = WARM_RUNS) -> Profile:
    """Read a profile from the events that onnxruntime writes (Chrome tracing format)."""
    listed = list(events)
    starts = sorted(e["ts"] for e in listed if e.get("name") == "model_run")
    first = starts[warm_runs] if len(starts) > warm_runs else 0
    times: dict[tuple[str, str, str], list[float]] = {}
    for event in listed:
        name = event.get("name", "")
        if event.get("cat") != "Node" or not name.endswith(_KERNEL) or event["ts"] < first:
            continue
        args = event.get("args", {})
        key = (name.removesuffix(_KERNEL), args.get("op_name", ""), args.get("provider", ""))
        times.setdefault(key, []).append(event["dur"] * 1000.0)
    return Profile(tuple(NodeTime(*key, ns=float(median(ns))) for key, ns in times.items()))
