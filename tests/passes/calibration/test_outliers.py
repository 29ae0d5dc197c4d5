"""Single samples that reach far out, and values as large that every sample has."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from heard import Heard
from int8_graphs import chain, graph, normal

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.calibration.collector import calibrate
from trimtab.passes.calibration.outliers import typical_reach, typical_rows
from trimtab.passes.calibration.range_estimator import METHODS, find_range
from trimtab.passes.calibration.statistics import EXPONENTS, count_reach
from trimtab.passes.pruning.channels import PruneChannels
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def pixels(rows: int = 64) -> np.ndarray:
    return np.concatenate([b.feeds["x"] for b in normal(chain(), rows=rows)])


def spoilt(value: float, rows: int = 64, samples: tuple[int, ...] = (5,)) -> Dataset:
    x = pixels(rows)
    x[list(samples), 3, 2, 1] = value
    return Dataset.of_arrays({"x": x})


def error(made: Model, model: Model) -> float:
    """Of the answers to usual samples, squared and relative to their size."""
    feeds = next(iter(normal(model, rows=32, seed=3))).feeds
    there = SessionConfig.for_evaluation(VNNI.target)
    expected = run(build_session(model), feeds)["y"]
    got = run(build_session(made, there), feeds)["y"]
    return float(np.square(got - expected).mean() / np.square(expected).mean())


@pytest.mark.parametrize("value", [1e4, -1e6, 1e30])
@pytest.mark.parametrize("ranges", ["mse", "entropy", "percentile"])
def test_one_broken_sample_does_not_spoil_a_range(value: float, ranges: str) -> None:
    model, heard = chain(), Heard()
    ctx = dataclasses.replace(VNNI, progress=heard)
    made = QuantizeStatic(data=spoilt(value), ranges=ranges)(model, ctx)
    assert error(made, model) < 0.01
    (told,) = heard.said
    assert "sample 5 reaches" in told
    assert "tensor 'x'" in told


def test_broken_samples_among_many_are_left_out_together() -> None:
    model = chain()
    made = QuantizeStatic(data=spoilt(1e5, rows=256, samples=(3, 77, 200)), samples=256)(
        model, VNNI
    )
    assert error(made, model) < 0.01


@pytest.mark.parametrize("method", METHODS)
def test_large_values_that_all_samples_have_are_kept(method: str) -> None:
    x = pixels()
    x[:, 0, 0, 0] = 3e4
    heard = Heard()
    ctx = dataclasses.replace(VNNI, progress=heard)
    found = calibrate(chain(), ["x"], Dataset.of_arrays({"x": x}), ctx)
    assert found["x"].histogram.start + found["x"].histogram.width >= 3e4
    assert not heard.said
    if method == "minmax":
        assert find_range(found["x"], method)[1] == pytest.approx(3e4)


def test_minmax_keeps_all_values() -> None:
    found = calibrate(chain(), ["x"], spoilt(1e6), VNNI)
    assert find_range(found["x"], "minmax")[1] == pytest.approx(1e6)


@pytest.mark.parametrize("rows", [2, 7])
def test_few_samples_have_no_outliers(rows: int) -> None:
    heard = Heard()
    data = spoilt(1e6, rows=rows, samples=(1,))
    calibrate(chain(), ["x"], data, dataclasses.replace(VNNI, progress=heard))
    assert not heard.said


def test_a_tensor_that_is_mostly_zero_is_counted_whole() -> None:
    counts = np.zeros(EXPONENTS, np.int64)
    count_reach(counts, np.array([0.0] * 95 + [5.0] * 5, np.float32))
    assert typical_reach(counts) == float("inf")


@pytest.mark.parametrize("largest", [1e-37, 0.7, 1.0, 4.0, 3e38])
def test_the_typical_reach_is_known_to_a_factor_of_two(largest: float) -> None:
    counts = np.zeros(EXPONENTS, np.int64)
    count_reach(counts, np.full(100, largest, np.float32))
    exact = float(np.float32(largest))
    assert exact <= typical_reach(counts) <= 2 * exact


def test_a_file_of_statistics_keeps_the_exclusion_of_outliers(tmp_path: Path) -> None:
    model, path = chain(), tmp_path / "seen.npz"
    step = QuantizeStatic(data=spoilt(1e6), statistics=str(path))
    fresh, again = step(model, VNNI), step(model, VNNI)
    assert path.exists()
    assert fresh.digest == again.digest
    assert error(again, model) < 0.01


@pytest.mark.parametrize("batch", ["N", "16"])
def test_pruning_fits_nothing_to_a_broken_sample(batch: str) -> None:
    text = f"""g (float[{batch}, 8, 12, 12] x) => (float[{batch}, 8, 12, 12] y) {{
          a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          b = Relu (a)
          y = Conv <pads = [1, 1, 1, 1]> (b, w2)
        }}"""
    model, heard = graph(text, w1=(16, 8, 3, 3), w2=(8, 16, 3, 3)), Heard()
    step = PruneChannels(ratio=0.5, samples=64)
    clean = step(model, dataclasses.replace(VNNI, data=spoilt(1.0)))
    made = step(model, dataclasses.replace(VNNI, data=spoilt(1e6), progress=heard))
    (told,) = heard.said
    assert told.startswith("sample 5 reaches")
    feeds = {"x": pixels(16)}
    whole, one, two = (run(build_session(m), feeds)["y"] for m in (model, clean, made))
    assert np.square(two - whole).mean() < 1.2 * np.square(one - whole).mean()


def test_scalars_beside_the_rows_are_not_samples() -> None:
    rows = np.ones((64, 4), np.float32)
    rows[7] = 1e9
    batches = [{"rate": np.array(16000.0), "x": part} for part in np.split(rows, 2)]
    usual = np.concatenate(typical_rows(batches))
    assert np.flatnonzero(~usual).tolist() == [7]
