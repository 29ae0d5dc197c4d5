"""Facts of the machine, and when they make it unfit to measure."""

from __future__ import annotations

import json
from dataclasses import replace

from trimtab.runtime_bench.environment import (
    Environment,
    Fitness,
    Snapshot,
    canary,
    fit_to_measure,
)

START = Snapshot(0, steal=0, ticks=0, pressure_us=0, throttled=0)
#: Ten quiet seconds of two CPUs.
QUIET = Snapshot(10 * 10**9, steal=1, ticks=2000, pressure_us=10_000, throttled=0)


def test_a_quiet_machine_is_fit() -> None:
    found = fit_to_measure(START, QUIET, canary_ns=[100] * 20, switches=[0] * 100)
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
        found = fit_to_measure(START, changed.pop("after", QUIET), **changed)
        assert not found.fit
        assert len(found.reasons) == 1
        assert text in found.reasons[0]
        assert found.reasons[0].count(":") == 1


def test_counters_that_a_system_lacks_are_no_reason() -> None:
    assert fit_to_measure(Snapshot(0), Snapshot(10**9)).fit


def test_a_snapshot_of_this_machine_grows() -> None:
    first, second = Snapshot.now(), Snapshot.now()
    assert second.at_ns >= first.at_ns
    assert second.ticks >= first.ticks


def test_a_missing_proc_is_no_error(monkeypatch) -> None:
    monkeypatch.setattr("trimtab.runtime_bench.environment._text", lambda path: "")
    assert Snapshot.now().ticks == 0
    assert Environment.here().cpu
    assert Environment.here().quota is None


def test_the_environment_goes_through_json() -> None:
    here = Environment.here()
    assert Environment.from_json(json.loads(json.dumps(here.to_json()))) == here


def test_the_machine_class_ignores_what_does_not_change_speed() -> None:
    here = Environment.here()
    same = replace(here, system="Linux 9.9", affinity=(7,), python="3.99")
    assert same.machine_class() == here.machine_class()
    assert replace(here, cpus=here.cpus + 1).machine_class() != here.machine_class()
    assert replace(here, onnxruntime="0").machine_class() != here.machine_class()


def test_the_fitness_goes_through_json() -> None:
    unfit = Fitness(fit=False, reasons=("loud",), facts={"steal": 0.5})
    assert Fitness.from_json(json.loads(json.dumps(unfit.to_json()))) == unfit


def test_the_canary_tells_the_best_of_three() -> None:
    times = iter([0, 30, 100, 120, 200, 240])
    assert canary(lambda: next(times)) == 20
