"""Comparisons with fake contenders: verdicts, findings, interruptions, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bench_fakes import FakeClock, FakeContender, fails_at
from graphs import model_of

from trimtab.core.errors import DataError, ModelError, OptionError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.runtime_bench.bench.clock import BenchClock
from trimtab.runtime_bench.measure import compare as module
from trimtab.runtime_bench.measure.compare import compare, measure
from trimtab.runtime_bench.measure.values import Comparison, Measurement, load, save

RELU = "(float[2,3] x) => (float[2,3] y) { y = Relu(x) }"


def named(name: str) -> Model:
    return replace(model_of(RELU), name=name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock of `compare` is a fake one."""
    fake = FakeClock()
    monkeypatch.setattr(module.time, "monotonic_ns", fake)
    monkeypatch.setattr(module.time, "monotonic", lambda: fake.at_ns / 1e9)
    monkeypatch.setattr(module, "canary", lambda: 100)
    return fake


def compared(clock: FakeClock, contenders: Sequence[FakeContender], **options) -> list[Comparison]:
    models = [named(f"m{i}") for i in range(len(contenders))]
    by_name = {m.name: a for m, a in zip(models, contenders, strict=True)}
    return compare(
        models[0], models[1:], make_contender=lambda _, name, __: by_name[name], **options
    )


def test_each_candidate_gets_its_verdict(clock: FakeClock) -> None:
    contenders = [FakeContender(clock, ns, seed=i) for i, ns in enumerate([1e6, 0.5e6, 1.2e6, 1e6])]
    faster, slower, same = compared(clock, contenders)
    assert [c.verdict for c in (faster, slower, same)] == ["better", "worse", "same"]
    assert faster.low < 2 < faster.high
    assert slower.high < 1
    assert 1 / 1.05 < same.low < 1 < same.high < 1.05
    assert all(contender.closed for contender in contenders)


def test_it_stops_long_before_the_limit_when_all_is_decided(clock: FakeClock) -> None:
    compared(clock, [FakeContender(clock, 1e6), FakeContender(clock, 2e6, seed=1)], max_seconds=600)
    assert clock.at_ns < 20e9


def test_too_little_time_is_inconclusive(clock: FakeClock) -> None:
    (found,) = compared(clock, [FakeContender(clock), FakeContender(clock, 2e6)], max_seconds=0.03)
    assert found.verdict == "inconclusive"
    assert (found.low, found.high) == (0.0, math.inf)


def test_a_base_against_itself_is_two_contenders(clock: FakeClock) -> None:
    made = []

    def make(_: object, name: str, __: object) -> FakeContender:
        made.append(FakeContender(clock, seed=len(made), name=name))
        return made[-1]

    model = named("m")
    (found,) = compare(model, [model], make_contender=make)
    assert len(made) == 2
    assert found.verdict == "same"


def test_ctrl_c_keeps_what_was_measured(clock: FakeClock) -> None:
    stopped = FakeContender(clock, before=fails_at(25, KeyboardInterrupt()))
    (found,) = compared(clock, [FakeContender(clock), stopped])
    assert found.interrupted
    assert found.blocks > 5
    assert len(found.candidate.samples_ns) == len(found.base.samples_ns) > 0
    assert stopped.closed


def test_ctrl_c_in_the_warm_up_yields_an_empty_comparison(clock: FakeClock) -> None:
    stopped = FakeContender(clock, before=fails_at(0, KeyboardInterrupt()))
    (found,) = compared(clock, [FakeContender(clock), stopped])
    assert found.interrupted
    assert found.blocks == 0
    assert math.isnan(found.ratio)
    assert found.base.median_ns is None


def test_a_candidate_that_dies_has_its_error_and_the_other_its_verdict(clock: FakeClock) -> None:
    dies = FakeContender(clock, before=fails_at(9))
    dead, whole = compared(clock, [FakeContender(clock), dies, FakeContender(clock, 2e6)])
    assert "its process died" in (dead.error or "")
    assert dead.blocks > 0
    assert whole.verdict == "worse"
    assert whole.check() is whole
    with pytest.raises(RunError, match="died"):
        dead.check()


def test_a_base_that_dies_midway_loses_nothing(clock: FakeClock) -> None:
    (found,) = compared(clock, [FakeContender(clock, before=fails_at(19)), FakeContender(clock)])
    assert found.error is not None
    assert found.blocks > 0


def test_candidates_share_alpha(clock: FakeClock) -> None:
    found = compared(clock, [FakeContender(clock, seed=i) for i in range(3)], alpha=0.02)
    assert [c.alpha for c in found] == [0.01, 0.01]


@pytest.mark.parametrize(
    "wrong", [{"max_seconds": 0}, {"alpha": 0.0}, {"alpha": 1.0}, {"resolution": -0.1}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        compare(named("a"), [named("b")], **wrong)


def test_no_candidate_is_refused() -> None:
    with pytest.raises(OptionError, match="no candidate"):
        compare(named("a"), [])


def test_a_missing_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        compare(named("a"), [tmp_path / "none.onnx"])


def test_a_comparison_round_trips_through_json(clock: FakeClock, tmp_path: Path) -> None:
    found = compared(clock, [FakeContender(clock), FakeContender(clock, 2e6)])
    save(tmp_path / "b.json", {"comparisons": [c.to_json() for c in found]})
    document = load(tmp_path / "b.json")
    assert [Comparison.from_json(c) for c in document["comparisons"]] == found
    assert document["schema"] == 1


def test_an_unfinished_comparison_round_trips_through_json(clock: FakeClock) -> None:
    (found,) = compared(clock, [FakeContender(clock), FakeContender(clock, 2e6)], max_seconds=0.1)
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert Comparison.from_json(plain) == found


def test_a_document_of_a_newer_trimtab_is_refused(tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text('{"schema": 99}')
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(DataError, match="schema 99"):
        load(tmp_path / "new.json")
    with pytest.raises(DataError, match="no schema"):
        load(tmp_path / "none.json")


def test_models_are_measured_side_by_side(clock: FakeClock) -> None:
    contenders = iter([FakeContender(clock, 1e6), FakeContender(clock, 3e6)])
    fast, slow = measure([named("a"), named("b")], make_contender=lambda *_: next(contenders))
    assert isinstance(fast, Measurement)
    assert slow.median_ns == pytest.approx(3 * (fast.median_ns or 0), rel=0.05)
    assert fast.percentile_ns(0.99) is not None
    assert clock.at_ns < 30.5e9


def test_a_measurement_ends_when_its_reader_has_enough(clock: FakeClock) -> None:
    (found,) = measure(
        [named("a")],
        make_contender=lambda *_: FakeContender(clock),
        until=lambda taken: len(taken[0]) >= 12,
    )
    assert len(found.samples_ns) == 12


def test_an_interrupted_measurement_says_so(clock: FakeClock) -> None:
    contender = FakeContender(clock, before=fails_at(12, KeyboardInterrupt()))
    (found,) = measure([named("a")], make_contender=lambda *_: contender)
    assert found.interrupted
    assert len(found.samples_ns) > 0


def test_quiet_runs_are_those_without_an_involuntary_switch(clock: FakeClock) -> None:
    (found,) = measure(
        [named("a")], make_contender=lambda *_: FakeContender(clock), max_seconds=0.1
    )
    changed = replace(found, samples_ns=(1, 2, 3), switches=(0, 1, 0))
    assert changed.quiet_ns == (1, 3)
    assert replace(changed, switches=()).quiet_ns == (1, 2, 3)


def test_the_clock_of_passes_answers_in_its_protocol() -> None:
    model, feeds = named("a"), {"x": __import__("numpy").zeros((2, 3), "f")}
    ratio = BenchClock().compare(model, model, feeds, SessionConfig(), 0.3)
    assert ratio.low <= ratio.value <= ratio.high
    assert len(BenchClock().median_ns([model, model], feeds, SessionConfig(), 0.2)) == 2
