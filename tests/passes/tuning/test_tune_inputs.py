"""Inputs of Tune: the data and sizes that it measures with, and the gains that it remembers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
from tune_fakes import SUM_WINS, CountingClock, context, norms, notes, tuned

from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session
from trimtab.core.target import Target
from trimtab.passes.tuning.cache import Cache
from trimtab.passes.tuning.tune import Tune

LENGTHS = ("x=2x6x16",)


def test_dynamic_sizes_are_asked_for() -> None:
    with pytest.raises(OptionError, match="x=1x128x16"):
        tuned(graphs.transformer(), CountingClock())


def test_given_sizes_are_fed() -> None:
    seen = []

    def cost(model: Model, feeds: Any) -> float:
        seen.append(feeds["x"].shape)
        return 1.0

    tuned(graphs.transformer(), CountingClock(cost_of=cost), shapes=LENGTHS)
    assert set(seen) == {(2, 6, 16)}


@pytest.mark.parametrize(("over", "kept"), [("mean", True), ("worst", False)])
def test_several_sizes_are_judged_by_their_mean_or_by_the_worst(over: str, *, kept: bool) -> None:
    """The Sum is twice as fast on the short input, a little slower on the long one."""

    def cost(model: Model, feeds: Any) -> float:
        if "Sum" not in graphs.ops(model):
            return 1.0
        return 0.5 if feeds["x"].shape[1] == 4 else 1.2

    shapes = ("x=1x4x16", "x=1x8x16")
    after = tuned(
        graphs.transformer(),
        CountingClock(cost_of=cost),
        shapes=shapes,
        over=over,
        rules=("sum-before-norm",),
    )
    assert ("Sum" in graphs.ops(after)) is kept


@pytest.mark.parametrize("text", ["x", "x=", "x=1xy", "=1x2", "x=0x2"])
def test_a_text_that_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"is not a valid shape|has no rows"):
        Tune(shapes=(text,))


def test_a_shape_for_an_input_that_does_not_exist_is_refused() -> None:
    with pytest.raises(OptionError, match="no input 'z'"):
        tuned(graphs.mlp(), CountingClock(), shapes=("z=1x2",))


def test_the_first_rows_of_the_data_are_fed_where_no_sizes_are_given() -> None:
    data = Dataset.of_arrays({"x": np.zeros((4, 7, 16), np.float32)})
    seen = []

    def cost(model: Model, feeds: Any) -> float:
        seen.append(feeds["x"].shape)
        return 1.0

    tuned(graphs.transformer(), CountingClock(cost_of=cost), data)
    assert set(seen) == {(1, 7, 16)}


def test_what_was_found_is_known_to_the_next_run(tmp_path: Any) -> None:
    cache = str(tmp_path / "known" / "forms.json")
    tuned(norms(), CountingClock({"Sum": 0.999}), cache=cache, goal="size")
    known = json.loads(Path(cache).read_text())
    [[place, rows]] = known.items()
    assert "onnxruntime" in place
    assert place.endswith("float")
    assert list(rows) == ["sum-before-norm | Add float nx5x8,nx5x8 @ x=1x5x8 z=1x5x8"]
    assert math.isclose(next(iter(rows.values()))[0], 1.0, abs_tol=0.01)


def test_what_a_site_with_free_axes_gained_is_known_for_the_same_sizes(tmp_path: Any) -> None:
    cache = str(tmp_path / "forms.json")
    even = CountingClock({"Sum": 0.999})
    tuned(graphs.transformer(), even, cache=cache, goal="size", shapes=("x=1x4x16",))
    target = context(None).target
    shapes = [
        key.partition(" | ")[2].partition(" @ ")[0]
        for key in next(iter(json.loads(Path(cache).read_text()).values()))
        if key.startswith("sum-before-norm")
    ]

    def known(sizes: str) -> Any:
        opened = Cache.open(cache, target, quantized=False, sizes=sizes)
        return opened.known("sum-before-norm", shapes)

    assert shapes
    assert known("x=1x4x16") is not None
    assert known("x=1x8x16") is None
    assert known("") == known("x=1x4x16")  # nobody said which sizes


def test_a_known_loser_is_not_tried_again_unless_named(tmp_path: Any) -> None:
    cache = str(tmp_path / "forms.json")

    class TwoFaced(CountingClock):
        def median_ns(self, models: Any, *args: Any) -> list[float]:
            return [1000.0, *([900.0] * (len(models) - 1))]

    clock = TwoFaced({"Sum": 9.0})
    assert "slower" in notes(tuned(norms(), clock, cache=cache))["tried"]["sum-before-norm"]
    again = notes(tuned(norms(), clock, cache=cache))["tried"]["sum-before-norm"]
    assert "was slower at such sites before" in again
    named = tuned(norms(), clock, cache=cache, rules=("sum-before-norm",))
    assert "measured" in notes(named)["tried"]["sum-before-norm"]


def test_another_provider_is_tuned_by_the_same_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Sessions are the CPU's here; what is asked for is the GPU's, everywhere and with its name."""
    asked: list[SessionConfig] = []

    def on_cpu(model: Model, config: SessionConfig) -> Any:
        asked.append(config)
        return build_session(model, replace(config, provider="CPUExecutionProvider"))

    class Seeing(CountingClock):
        def compare(self, base: Model, candidate: Model, feeds: Any, config: Any, s: float) -> Any:
            asked.append(config)
            return super().compare(base, candidate, feeds, config, s)

    monkeypatch.setattr("trimtab.passes.tuning.judge.build_session", on_cpu)
    gpu = replace(context(Seeing(SUM_WINS)), target=Target.named("cuda"))
    cache = tmp_path / "forms.json"
    after = Tune(cache=str(cache))(norms(), gpu)
    assert notes(after)["kept"] == ["sum-before-norm"]
    assert {config.provider for config in asked} == {"CUDAExecutionProvider"}
    assert next(iter(json.loads(cache.read_text()))).startswith("CUDA, gpu")


def test_a_cache_that_cannot_be_read_or_written_is_no_failure(tmp_path: Any) -> None:
    broken = tmp_path / "forms.json"
    broken.write_text("{")
    assert notes(tuned(norms(), CountingClock(SUM_WINS), cache=str(broken)))["kept"]
    assert notes(tuned(norms(), CountingClock(SUM_WINS), cache=str(broken / "no.json")))["kept"]
