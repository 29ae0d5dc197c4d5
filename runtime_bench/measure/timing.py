"""The timing loop that all contenders share; it imports nothing heavy, as workers start often."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..machine.instructions import INSTRUCTIONS, Counter

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Runs:
    """Timed runs of one contender, in order.

    Attributes:
        ns: latency of each.
        switches: involuntary context switches during each; empty if the system does not count them.
        cpu_ns: mean CPU time of a run, of all threads of the process; 0 if not counted.
        instructions: mean instructions of a run; 0 where the kernel does not count them.
    """

    ns: tuple[int, ...]
    switches: tuple[int, ...] = ()
    cpu_ns: float = 0.0
    instructions: float = 0.0

    def after(self, discarded: int) -> Runs:
        """Return the runs without the first ones; means stay those of all."""
        return replace(self, ns=self.ns[discarded:], switches=self.switches[discarded:])

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return dict(self.__dict__)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Runs:
        """Read the runs that `to_json` wrote; other keys are not its own."""
        means = {name: value.get(name, 0.0) for name in ("cpu_ns", "instructions")}
        return cls(tuple(value["ns"]), tuple(value["switches"]), **means)


def mean_cost(parts: Sequence[tuple[int, float]]) -> float:
    """Return the mean of a cost of a run over parts of so many runs; 0 where one did not count."""
    known = [(count, cost) for count, cost in parts if count]
    if not known or not all(cost for _, cost in known):
        return 0.0
    return sum(count * cost for count, cost in known) / sum(count for count, _ in known)


@functools.cache
def instruction_counter() -> Counter | None:
    """Return the counter of this process, None where there is none.

    The first call opens it, and has to come before threads start that should count.
    """
    return Counter.open(INSTRUCTIONS)


def instructions_so_far() -> int:
    """Return the instructions of this process so far; 0 if not counted."""
    counter = instruction_counter()
    return 0 if counter is None else counter.read()


def involuntary_switches() -> int:
    """Return the involuntary context switches of this process so far; 0 if not counted."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def time_calls(call: Callable[[], object], runs: int) -> Runs:
    """Time a number of consecutive calls; results are freed outside the timed part."""
    clock = time.perf_counter_ns
    ns, switches = [0] * runs, [0] * runs
    collecting = gc.isenabled()
    gc.disable()
    try:
        cpu, instructions = time.process_time_ns(), instructions_so_far()
        before = involuntary_switches()
        for i in range(runs):
            start = clock()
            result = call()
            ns[i] = clock() - start
            del result
            after = involuntary_switches()
            switches[i] = after - before
            before = after
        cpu, instructions = time.process_time_ns() - cpu, instructions_so_far() - instructions
    finally:
        if collecting:
            gc.enable()
    return Runs(tuple(ns), tuple(switches), cpu / max(runs, 1), instructions / max(runs, 1))
