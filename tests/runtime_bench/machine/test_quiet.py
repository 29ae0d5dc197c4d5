"""Waiting for a quiet machine, with a made clock and made counters."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trimtab.runtime_bench.machine import quiet
from trimtab.runtime_bench.machine.noise_check import Snapshot
from trimtab.runtime_bench.machine.quiet import other_work, wait_for_quiet


class Machine:
    """A machine of two CPUs, some of whose CPU time other work takes."""

    def __init__(self, busy: Callable[[float], float], pressure: float = 0.0) -> None:
        self.at, self.idle, self.waited = 0.0, 0.0, 0.0
        self.busy, self.pressure = busy, pressure

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.idle += seconds * (2 - self.busy(self.at))
        self.waited += seconds * self.pressure

    def look(self) -> Snapshot:
        ticks, idle = int(200 * self.at), int(100 * self.idle)
        pressure_us = int(1e6 * self.waited)
        return Snapshot(int(1e9 * self.at), ticks=ticks, pressure_us=pressure_us, idle=idle)

    def wait(self, seconds: float, threads: int = 1) -> quiet.QuietWait:
        return wait_for_quiet(
            seconds, threads, now=lambda: self.at, sleep=self.sleep, look=self.look
        )


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_cpus", lambda: 2)


def test_a_minute_without_other_work_is_waited_for() -> None:
    found = Machine(lambda at: 2.0 if at < 100 else 0.0).wait(300)
    assert found.quiet
    assert 150 < found.seconds < 175


def test_a_machine_that_stays_busy_ends_the_wait_with_the_reason() -> None:
    found = Machine(lambda _: 2.0, pressure=0.5).wait(60)
    assert not found.quiet
    assert found.seconds == pytest.approx(60, abs=1)
    assert "waited for a CPU" in found.reason


def test_each_thread_needs_an_idle_cpu() -> None:
    assert Machine(lambda _: 1.0).wait(60, threads=1).quiet
    found = Machine(lambda _: 1.0).wait(60, threads=2)
    assert "the model has 2 threads" in found.reason


@pytest.mark.parametrize(
    ("pressure", "load", "told"),
    [
        ("some avg10=96.64 avg60=1.0 avg300=0.1 total=1", "1.0 1 1", "97%"),
        ("some avg10=0.10 avg60=1.0 avg300=0.1 total=1", "5.2 1 1", "5.2 tasks at work"),
        ("", "0.3 1 1", ""),
        ("", "", ""),
    ],
)
def test_other_work_is_told_where_the_system_knows_it(
    monkeypatch: pytest.MonkeyPatch, pressure: str, load: str, told: str
) -> None:
    files = {"/proc/pressure/cpu": pressure, "/proc/loadavg": load}
    monkeypatch.setattr(quiet, "read_text", files.__getitem__)
    assert told in other_work()
    assert bool(other_work()) == bool(told)
