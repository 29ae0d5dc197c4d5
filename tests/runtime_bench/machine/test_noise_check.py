"""Disturbances during a measurement, and those that make a machine unfit."""

from __future__ import annotations

import json
from dataclasses import replace

from trimtab.runtime_bench.machine.gpu import GpuState
from trimtab.runtime_bench.machine.noise_check import NoiseCheck, Snapshot, canary, check_noise

START = Snapshot(0, steal=0, ticks=0, pressure_us=0, throttled=0)
#: Ten quiet seconds of two CPUs.
QUIET = Snapshot(10 * 10**9, steal=1, ticks=2000, pressure_us=10_000, throttled=0)


def test_a_quiet_machine_is_fit() -> None:
    found = check_noise(START, QUIET, canary_ns=[100] * 20, switches=[0] * 100)
    assert found.fit
    assert found.reasons == ()
    assert found.facts["steal"] == 1 / 2000


def test_each_disturbance_is_named_with_its_figure_and_a_way_out() -> None:
    cases = {
        "hypervisor took 10.0%": {"after": replace(QUIET, steal=200)},
        "waited for a CPU 50%": {"after": replace(QUIET, pressure_us=5_000_000)},
        "quota stopped us 3 times": {"after": replace(QUIET, throttled=3)},
        "0.50 involuntary switches": {"switches": [0, 1] * 50},
        "varied 3.00 fold": {"canary_ns": [100] * 15 + [300] * 5},
    }
    for text, changed in cases.items():
        found = check_noise(START, changed.pop("after", QUIET), **changed)
        assert not found.fit
        assert len(found.reasons) == 1
        assert text in found.reasons[0]
        assert found.reasons[0].count(":") == 1


def test_counters_that_a_system_lacks_are_ignored() -> None:
    assert check_noise(Snapshot(0), Snapshot(10**9)).fit


def test_a_snapshot_of_this_machine_grows() -> None:
    first, second = Snapshot.now(), Snapshot.now()
    assert second.at_ns >= first.at_ns
    assert second.ticks >= first.ticks


def test_the_noise_check_round_trips_through_json() -> None:
    unfit = NoiseCheck(fit=False, reasons=("loud",), facts={"steal": 0.5})
    assert NoiseCheck.from_json(json.loads(json.dumps(unfit.to_json()))) == unfit


def test_the_canary_returns_the_best_of_three() -> None:
    times = iter([0, 30, 100, 120, 200, 240])
    assert canary(lambda: next(times)) == 20


def test_counters_that_cannot_be_read_are_none(monkeypatch) -> None:
    monkeypatch.setattr("trimtab.runtime_bench.machine.noise_check.read_text", lambda path: "")
    found = Snapshot.now()
    assert (found.ticks, found.pressure_us, found.throttled, found.gpu) == (0, None, None, None)


def test_a_gpu_whose_clock_was_slowed_is_unfit() -> None:
    cool = GpuState("GPU", "1", clock_mhz=1900, most_mhz=1980, celsius=60, slowed_us=5)
    before, after = replace(START, gpu=cool), replace(QUIET, gpu=cool)
    found = check_noise(before, after)
    assert found.fit
    assert found.facts["gpu_clock"] == 1900
    assert found.facts["gpu_slowed"] == 0
    slowed = replace(QUIET, gpu=replace(cool, slowed_us=2_000_005))
    (reason,) = check_noise(before, slowed).reasons
    assert "slowed 20.0% of the time" in reason
    hot = replace(QUIET, gpu=replace(cool, reasons=0x21))
    (reason,) = check_noise(before, hot).reasons
    assert "its temperature (driver)" in reason
