from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from int8_graphs import graph

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.session import build_session, run
from trimtab.passes.calibration import collector as module
from trimtab.passes.calibration.collector import calibrate
from trimtab.passes.calibration.statistics import unbounded_nodes
from trimtab.passes.graph import runs_in_parts


def network(batch: str = "N"):
    return graph(
        f"""g (float[{batch}, S, 4] x) => (float[{batch}, S, 3] y) {{
          a = MatMul (x, w)
          b = Relu (a)
          c = Mul (b, b)
          d = Neg (c)
          y = Add (d, a)
        }}""",
        w=(4, 3),
    )


TENSORS = ["x", "a", "b", "c", "y"]
CONTEXT = Context()


def naive(model, batches):
    session = build_session(with_outputs(model, TENSORS[1:]))
    found = {name: [] for name in TENSORS}
    for x in batches:
        for name, array in {"x": x, **run(session, {"x": x})}.items():
            found[name] += list(array)
    return found


def batches_of(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((*s, 4)).astype(np.float32) for s in shapes]


@pytest.mark.parametrize(
    "shapes",
    [[(8, 5)], [(8, 5), (8, 5), (3, 5)], [(4, 5), (2, 9), (7, 1)], [(1, 1)], [(300, 2)]],
    ids=["one", "ragged", "variable length", "single value", "large batch"],
)
def test_extremes_are_exact_on_any_batches(shapes):
    model, batches = network(), batches_of(*shapes)
    got = calibrate(
        model, TENSORS, Dataset.of_batches(lambda: [{"x": b} for b in batches]), CONTEXT
    )
    for name, rows in naive(model, batches).items():
        lows, highs = [r.min() for r in rows], [r.max() for r in rows]
        assert got[name].lowest == pytest.approx(min(lows), rel=1e-5, abs=1e-6)
        assert got[name].highest == pytest.approx(max(highs), rel=1e-5, abs=1e-6)
        assert got[name].rows == len(rows)
        low, high = got[name].sum_lowest / len(rows), got[name].sum_highest / len(rows)
        assert low == pytest.approx(np.mean(lows), rel=1e-4, abs=1e-5)
        assert high == pytest.approx(np.mean(highs), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 64, 1000])
def test_the_batch_size_changes_nothing(batch):
    model, rows = network(), batches_of((50, 5))[0]
    got = calibrate(model, TENSORS, Dataset.of_arrays({"x": rows}, batch=batch), CONTEXT)
    assert got["a"].rows == 50
    assert got["a"].lowest == pytest.approx(
        (rows @ model.graph.initializers["w"].const_value.numpy()).min(), rel=1e-5
    )


def test_small_tensors_are_counted_whole():
    model, rows = network(), batches_of((50, 5))[0]
    got = calibrate(model, ["x"], Dataset.of_arrays({"x": rows}), CONTEXT)
    assert got["x"].histogram.total == rows.size


def test_large_tensors_are_counted_in_part_and_evenly(monkeypatch):
    monkeypatch.setattr(module, "SAMPLED_VALUES", 2000)
    monkeypatch.setattr(module, "SAMPLED_PER_RUN", 2000)
    model, rows = network(), batches_of((64, 500))[0]
    histogram = calibrate(model, ["x"], Dataset.of_arrays({"x": rows}), CONTEXT)["x"].histogram
    assert 1000 <= histogram.total <= 3000
    share = np.cumsum(histogram.counts) / histogram.total
    assert np.interp(0.5, share, histogram.centres) == pytest.approx(0.0, abs=0.15)


def test_memory_of_a_run_is_bounded(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "CHUNK_BYTES", 10_000)
    original = module.RunsInParts.run
    monkeypatch.setattr(
        module.RunsInParts, "run", lambda s, f: seen.append(len(f["x"])) or original(s, f)
    )
    model, rows = network(), batches_of((100, 20))[0]
    calibrate(model, TENSORS, Dataset.of_arrays({"x": rows}, batch=100), CONTEXT)
    # A row takes 20 x (4 + 4 x 3) values of 4 bytes.
    assert max(seen) <= 10_000 // (20 * 16 * 4)
    assert sum(seen) == 100


def test_parts_of_a_row_give_the_same_statistics(monkeypatch):
    model, rows = network(), batches_of((20, 5))[0]
    whole = calibrate(model, TENSORS, Dataset.of_arrays({"x": rows}), CONTEXT)
    monkeypatch.setattr(runs_in_parts, "PART_BYTES", 1)
    parts = calibrate(model, TENSORS, Dataset.of_arrays({"x": rows}), CONTEXT)
    for name, of in whole.items():
        assert (parts[name].lowest, parts[name].highest) == (of.lowest, of.highest)
        assert parts[name].rows == of.rows == 20
        np.testing.assert_array_equal(parts[name].histogram.counts, of.histogram.counts)


def test_a_fixed_batch_size_gets_full_batches():
    model, rows = network(batch="4"), batches_of((10, 5))[0]
    got = calibrate(model, TENSORS, Dataset.of_arrays({"x": rows}), CONTEXT)
    assert got["x"].lowest == pytest.approx(rows.min())
    assert got["x"].highest == pytest.approx(rows.max())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_name_tensor_and_sample(bad):
    rows = batches_of((100, 5))[0]
    rows[71, 2, 1] = bad
    with pytest.raises(DataError, match=r"tensor 'x' .* at sample 71"):
        calibrate(network(), TENSORS, Dataset.of_arrays({"x": rows}, batch=16), CONTEXT)


def test_infinity_inside_the_model_is_found():
    rows = batches_of((10, 5))[0]
    rows[4] = 1e25
    with pytest.raises(DataError, match=r"tensor 'c' .* at sample 4"):
        calibrate(network(), ["c"], Dataset.of_arrays({"x": rows}), CONTEXT)


def test_a_batch_that_does_not_fit_is_named_by_position():
    batches = [{"x": b} for b in batches_of((2, 5), (2, 5))] + [{"x": np.ones((2, 5, 7), "f4")}]
    with pytest.raises(DataError, match="batch 2: the model refuses it"):
        calibrate(network(), TENSORS, Dataset.of_batches(lambda: batches), CONTEXT)


def test_progress_is_reported():
    told = []

    class Spy:
        def track(self, items, label, total=None):
            told.append((label, total))
            yield from items

        def say(self, text):
            pass

    rows = batches_of((10, 5))[0]
    calibrate(network(), ["x"], Dataset.of_arrays({"x": rows}), Context(progress=Spy()))
    assert told == [("calibrating", 1)]


def masked():
    """Scores of which some are minus infinity in front of Softmax."""
    model = graph(
        """g (float[N, 4] x) => (float[N, 4] y) {
          hidden = Less (x, zero)
          s = Where (hidden, low, x)
          y = Softmax (s)
        }""",
        zero=(1,),
        low=(1,),
    )
    for name, value in {"zero": 0.0, "low": -np.inf}.items():
        tensor = ir.Tensor(np.array([value], np.float32), name=name)
        model.graph.initializers[name].const_value = tensor
    return model


def test_masks_of_minus_infinity_are_left_without_a_range():
    rows = np.array([[1, 2, -3, 4], [5, -6, 7, 8]], np.float32)
    data = Dataset.of_arrays({"x": rows})
    model = masked()
    found = calibrate(model, ["x", "s"], data.bind(model), CONTEXT)
    assert (found["s"].lowest, found["s"].highest) == (0, 8)
    assert found["s"].unbounded
    assert not found["x"].unbounded
    nodes = unbounded_nodes(model.graph, found)
    assert [node.op_type for node in nodes] == ["Where", "Softmax"]


def test_infinity_that_reaches_the_outputs_is_refused():
    data = Dataset.of_arrays({"x": np.full((2, 4), -1.0, np.float32)})  # all hidden: NaN
    model = masked()
    with pytest.raises(DataError, match="NaN or infinity at sample 0"):
        calibrate(model, ["x", "s"], data.bind(model), CONTEXT)


def test_nan_that_a_mask_leaves_in_an_answer_is_by_design():
    model = graph(
        """g (float[N, 4] x) => (float[N, 4] y) {
          hidden = Less (x, zero)
          s = Where (hidden, none, x)
          y = Relu (s)
        }""",
        zero=(1,),
        none=(1,),
    )
    for name, value in {"zero": 0.0, "none": np.nan}.items():
        tensor = ir.Tensor(np.array([value], np.float32), name=name)
        model.graph.initializers[name].const_value = tensor
    rows = np.array([[1, 2, -3, 4], [5, -6, 7, 8]], np.float32)
    found = calibrate(model, ["s"], Dataset.of_arrays({"x": rows}).bind(model), CONTEXT)
    assert (found["s"].lowest, found["s"].highest, found["s"].unbounded) == (0, 8, True)
    rows[1] = -1  # of which nothing is left to answer
    with pytest.raises(DataError, match="NaN or infinity"):
        calibrate(model, ["s"], Dataset.of_arrays({"x": rows}).bind(model), CONTEXT)


def test_missing_values_of_an_input_have_no_range():
    model = graph(
        """g (float[N, 4] x) => (float[N, 4] y) {
          gone = IsNaN (x)
          s = Where (gone, zero, x)
          y = Relu (s)
        }""",
        zero=(1,),
    )
    rows = np.array([[1, 2, np.nan, 4], [5, np.nan, 7, 8]], np.float32)
    found = calibrate(model, ["x", "y"], Dataset.of_arrays({"x": rows}).bind(model), CONTEXT)
    assert found["x"].unbounded
    assert (found["y"].highest, found["y"].unbounded) == (8, False)
