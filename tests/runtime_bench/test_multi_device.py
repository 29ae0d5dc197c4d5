"""Several devices as one bench: the worst of them counts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from trimtab.cli import main
from trimtab.core.errors import OptionError
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Silent
from trimtab.core.target import PRESETS, Target, common_target
from trimtab.runtime_bench.bench.bench import LocalBench, Timing
from trimtab.runtime_bench.machine.environment import Environment
from trimtab.runtime_bench.measure.values import Comparison, Measurement
from trimtab.runtime_bench.multi_device import MultiDeviceBench, machine_classes
from trimtab.runtime_bench.open import bench_on_all
from trimtab.search.ranking import violations
from trimtab.search.result import Constraints, Result

HOW = Timing(SessionConfig(threads=1), max_seconds=8.0, alpha=0.04)


def measured(ms: float) -> Measurement:
    samples = (int(ms * 1e6),) * 40
    return Measurement("m", "0", 1, samples, (), Environment.here(), SessionConfig(threads=1))


def compared(ratio: float, verdict: str = "better", ms: float = 1.0, **more: object) -> Comparison:
    found = Comparison(
        measured(ms * ratio), measured(ms), ratio, ratio - 0.1, ratio + 0.1, verdict, 0.02, 0.05
    )
    return replace(found, **more)


class FakeBench(LocalBench):
    """A device with known answers that records its calls."""

    def __init__(self, *answers: Comparison, machine: str = "") -> None:
        self.answers, self.asked, self.machine = list(answers), [], machine

    def compare(self, base, candidates, feeds, how, progress):
        self.asked.append(how)
        return self.answers

    def measure(self, models, feeds, how, progress):
        self.asked.append(how)
        return [c.candidate for c in self.answers]

    def environment(self):
        return replace(Environment.here(), cpu=self.machine)


def least(**answers: Comparison) -> Comparison:
    bench = MultiDeviceBench({name: FakeBench(answer) for name, answer in answers.items()})
    (found,) = bench.compare("a", ["b"], {}, HOW, Silent())
    return found


def test_the_device_with_the_least_gain_counts():
    found = least(pi5=compared(1.8), orin=compared(1.3))
    assert (found.ratio, found.verdict) == (1.3, "better")
    assert {name: c.ratio for name, c in found.devices.items()} == {"pi5": 1.8, "orin": 1.3}
    again = Comparison.from_json(found.to_json())
    assert again == found


def test_the_interval_is_that_of_the_least_ratio():
    found = least(pi5=compared(1.5, low=0.9, high=2.2), orin=compared(1.4, low=1.35, high=1.45))
    assert (found.ratio, found.low, found.high) == (1.4, 0.9, 1.45)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("better", "better", "better"),
        ("better", "same", "same"),
        ("better", "inconclusive", "inconclusive"),
        ("inconclusive", "worse", "worse"),
    ],
)
def test_better_is_better_on_all(one, other, both):
    assert least(pi5=compared(1.2, one), orin=compared(1.2, other)).verdict == both


def test_each_has_its_part_of_time_and_error_rate():
    one, other = FakeBench(compared(1.2)), FakeBench(compared(1.2))
    MultiDeviceBench({"pi5": one, "orin": other}).compare("a", ["b"], {}, HOW, Silent())
    assert [(h.max_seconds, h.alpha) for h in one.asked + other.asked] == [(4.0, 0.02)] * 2


def test_a_failure_on_one_is_a_failure():
    broken = compared(1.2, error="crashed")
    assert least(pi5=compared(1.2), orin=broken).error == "on orin: crashed"


def test_an_interrupted_comparison_proves_nothing():
    one, other = FakeBench(compared(1.2, interrupted=True)), FakeBench(compared(1.2))
    (found,) = MultiDeviceBench({"pi5": one, "orin": other}).compare("a", ["b"], {}, HOW, Silent())
    assert not other.asked
    assert (found.low, found.high, found.verdict) == (0.0, math.inf, "inconclusive")
    assert found.interrupted


def test_a_layer_is_as_slow_as_on_the_slowest():
    bench = MultiDeviceBench(
        {"pi5": FakeBench(compared(1.0, ms=2.0)), "orin": FakeBench(compared(1.0, ms=1.0))}
    )
    (found,) = bench.measure(["a"], {}, HOW, Silent())
    assert found.median_ns == 2e6


def test_a_latency_must_hold_on_every_device():
    # The slower device is not the one that gains least.
    found = least(pi5=compared(2.0, ms=5.0), orin=compared(1.2, ms=1.0))
    original, candidate = Result("original"), Result("c", comparison=found)
    asked = Constraints.of({"max_latency": "p50=3ms"})
    texts = [
        o.text for o in violations(candidate, original, asked) if o.constraint == "max_latency"
    ]
    assert texts == ["p50 5.000 ms on pi5, 3 ms is allowed"]
    wider = violations(candidate, original, Constraints.of({"max_latency": "p50=6ms"}))
    assert "max_latency" not in {objection.constraint for objection in wider}


def test_only_equal_machines_share_measurements():
    one, other = FakeBench(machine="a"), FakeBench(machine="b")
    both = machine_classes(MultiDeviceBench({"x": one, "y": other}))
    assert both == machine_classes(MultiDeviceBench({"v": other, "w": one}))
    assert both not in {machine_classes(one), machine_classes(other)}


def test_the_target_suits_all():
    pickier = common_target([PRESETS["arm64"], PRESETS["x64-avx2"], PRESETS["x64-avx512-vnni"]])
    assert (pickier.isa, pickier.vnni, pickier.reduce_range) == ("x64", False, True)
    assert pickier.float_block == 16
    assert pickier.activation == "uint8"
    assert common_target([PRESETS["arm64"]] * 2) == PRESETS["arm64"]


def test_a_board_and_a_gpu_need_different_models():
    with pytest.raises(OptionError, match="CPUExecutionProvider and CUDAExecutionProvider"):
        common_target([PRESETS["arm64"], Target.named("cuda")])


def test_one_device_under_two_names_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("pi5", "board"):
        assert main(["device", "add", name, "ssh://me@pi5.local"]) == 0
    with (
        pytest.raises(OptionError, match="pi5 and board are one device"),
        bench_on_all("pi5,board", Silent()),
    ):
        pass


def test_what_one_device_does_not_measure_none_of_them_does() -> None:
    browser = FakeBench()
    browser.unmeasured = {"memory": "not in a browser"}
    both = MultiDeviceBench({"board": FakeBench(), "web": browser})
    assert both.unmeasured == {"memory": "not in a browser"}
