"""Models on several engines in one run; with real ones where a provider's package is installed."""

from __future__ import annotations

from dataclasses import replace

import openvino_here
import pytest
from bench_fakes import FakeClock, FakeContender
from graphs import cnn, model_of

from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.accelerators import CPU, OPENVINO
from trimtab.core.ort.engines import Engine
from trimtab.runtime_bench.devices.dispatch import dispatch
from trimtab.runtime_bench.measure import compare as comparing
from trimtab.runtime_bench.measure import engines
from trimtab.runtime_bench.measure.compare import compare
from trimtab.runtime_bench.measure.engines import spread
from trimtab.runtime_bench.measure.subject import OnEngine, Subject
from trimtab.runtime_bench.measure.text import comparison_lines


def named(name: str) -> Model:
    return replace(model_of("(float[2,3] x) => (float[2,3] y) { y = Relu(x) }"), name=name)


@pytest.fixture
def both(monkeypatch) -> None:
    monkeypatch.setattr(engines, "available_providers", lambda: (CPU, OPENVINO))


def test_each_model_is_on_each_engine_and_the_base_first(both) -> None:
    models = [named("float"), named("int8")]
    names = [Subject.of(m).name for m in spread(models, ["cpu", "openvino"])]
    assert names == ["float on cpu", "float on openvino", "int8 on cpu", "int8 on openvino"]
    other = spread(models, ["cpu", "openvino"], "openvino")
    assert Subject.of(other[0]).name == "float on openvino"


def test_engines_that_are_missing_or_given_twice_are_refused(both) -> None:
    with pytest.raises(OptionError, match="onnxruntime-qnn"):
        spread([named("m")], ["qnn"])
    with pytest.raises(OptionError, match="given twice"):
        spread([named("m")], ["openvino", "openvino"])
    assert Subject.of(spread([named("m")], ["qnn"], here=False)[1]).name == "m on qnn"


def test_contenders_get_the_configuration_of_their_engine(both, monkeypatch) -> None:
    clock, seen = FakeClock(), []
    monkeypatch.setattr(comparing.time, "monotonic_ns", clock)
    monkeypatch.setattr(comparing.time, "monotonic", lambda: clock.at_ns / 1e9)
    monkeypatch.setattr(comparing, "canary", lambda: 100)

    def make(_: object, name: str, config) -> FakeContender:
        seen.append((name, config.provider, dict(config.provider_options)))
        return FakeContender(clock, seed=len(seen))

    found = compare(
        named("m"), [named("n")], providers=["cpu", "openvino:device_type=CPU"], make_contender=make
    )
    assert len(found) == 3
    assert ("n on openvino:device_type=CPU", OPENVINO, {"device_type": "CPU"}) in seen
    assert found[2].candidate.config.provider == OPENVINO
    assert any(f"{CPU}, {OPENVINO}" in line for line in comparison_lines(found))


def test_a_device_gets_the_engines_by_name() -> None:
    given = []

    class Bench:
        def compare(self, base, others, *_: object) -> list[object]:
            given.extend([base, *others])
            return []

    dispatch(Bench(), "compare", ["a", "b"], {}, None, None, engines=["cpu", None])
    assert given == [OnEngine("a", Engine.of("cpu")), "b"]


@pytest.mark.skipif(not openvino_here.RUNS, reason=openvino_here.NEEDED)
def test_a_real_engine_proves_its_placement() -> None:
    model = cnn()
    found = compare(model, [model], providers=["cpu", "openvino"], max_seconds=8)
    for comparison in found:
        comparison.check()
    placement = found[0].candidate.placement
    assert placement is not None
    assert placement.nodes[OPENVINO] == sum(placement.nodes.values())
