"""Counters of the kernel."""

from __future__ import annotations

import platform
import sys
import time

import pytest

from trimtab.runtime_bench.machine.instructions import INSTRUCTIONS, TASK_CLOCK, Counter


def work() -> None:
    sum(range(2_000_000))


@pytest.mark.skipif(sys.platform != "linux", reason="perf_event_open is Linux's")
def test_the_kernels_clock_of_a_task_counts_its_cpu_time() -> None:
    counter = Counter.open(TASK_CLOCK)
    if counter is None:
        pytest.skip("kernel.perf_event_paranoid forbids counters")
    before, cpu = counter.read(), time.thread_time_ns()
    work()
    counted, cpu = counter.read() - before, time.thread_time_ns() - cpu
    counter.close()
    assert counted == pytest.approx(cpu, rel=0.2)


def test_instructions_grow_with_the_work_or_are_not_there() -> None:
    counter = Counter.open(INSTRUCTIONS)
    if counter is None:
        pytest.skip("this machine does not pass its counters on")
    counts = []
    for times in (1, 3):
        before = counter.read()
        for _ in range(times):
            work()
        counts.append(counter.read() - before)
    counter.close()
    assert counts[1] / counts[0] == pytest.approx(3, rel=0.1)


def test_an_unknown_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    assert Counter.open(TASK_CLOCK) is None
