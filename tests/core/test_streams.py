"""Streams: which inputs are states, what a step is fed, and what calibration and judging see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trimtab.cli import main
from trimtab.core.batches import STEADY, fitting, items_of
from trimtab.core.data import Array
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError
from trimtab.core.metric import evaluate
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.runner import run_here
from trimtab.core.streams import state_pairs

RNG = np.random.default_rng(0)
U, V, R = (RNG.normal(size=size).astype(np.float32) * 0.4 for size in ((8, 8), (4, 8), (8, 3)))
X = RNG.normal(size=(50, 4)).astype(np.float32)


def floats(name: str, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def made(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    **weights: Array,
) -> Model:
    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opset = [helper.make_opsetid("", 17)]
    return Model.from_proto(helper.make_model(graph, opset_imports=opset, ir_version=8))


def cell(state: str = "h", after: str = "hn", *, gain: float = 1.0) -> Model:
    """Return h' = tanh(h U + x V), y = h' R."""
    node = helper.make_node
    return made(
        [
            node("MatMul", [state, "U"], ["a"]),
            node("MatMul", ["x", "V"], ["b"]),
            node("Add", ["a", "b"], ["s"]),
            node("Tanh", ["s"], [after]),
            node("MatMul", [after, "R"], ["y"]),
        ],
        [floats("x", "n", 4), floats(state, "n", 8)],
        [floats("y", "n", 3), floats(after, "n", 8)],
        U=U * np.float32(gain),
        V=V,
        R=R,
    )


def states_of(rows: Array, gain: float = 1.0) -> Array:
    """Return the state before each row, and the one behind the last."""
    states = [np.zeros((1, 8))]
    for x in rows:
        states.append(np.tanh(states[-1] @ (U * gain) + x @ V))
    return np.concatenate(states)


@pytest.mark.parametrize(
    ("state", "after"),
    [
        ("h", "hn"),
        ("h0", "hn"),
        ("h_0", "h_n"),
        ("state", "stateN"),
        ("h_in", "h_out"),
        ("prev_h", "h"),
        ("h.1", "next_h.1"),
        ("cache", "cache_out"),
        ("cached_key_3", "new_cached_key_3"),
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.11.value", "present_key_values.11.value"),
        ("past_0", "present_0"),
        ("r1i", "r1o"),
        ("input_states", "output_states"),
        ("foo", "bar"),  # by shape: the only pair left
    ],
)
def test_pairs_of_state_and_output_are_found_by_name_or_shape(state: str, after: str) -> None:
    assert state_pairs(cell(state, after), ["x"], (), "d") == ((state, after),)


def test_an_input_that_the_data_hold_is_no_state_unless_it_is_asked_for() -> None:
    assert state_pairs(cell(), ["x", "h"], (), "d") == ()
    assert state_pairs(cell(), ["x"], (("h", "hn"),), "d") == (("h", "hn"),)


def test_a_forgotten_picture_is_not_taken_for_a_state() -> None:
    node = helper.make_node("Add", ["left", "right"], ["sum"])
    shape = (1, 3, 8, 8)
    pair = made([node], [floats("left", *shape), floats("right", *shape)], [floats("sum", *shape)])
    with pytest.raises(DataError, match="no array for the model's input right"):
        Dataset.of_arrays({"left": np.zeros(shape, np.float32)}).bind(pair)


def test_states_whose_shapes_or_names_do_not_pair_are_refused() -> None:
    with pytest.raises(DataError, match="do not pair"):
        state_pairs(cell(), ["x"], (("h", "y"),), "d")
    with pytest.raises(OptionError, match="unknown output 'hm'"):
        state_pairs(cell(), ["x"], (("h", "hm"),), "d")


def test_calibration_sees_the_states_of_the_float_model() -> None:
    model = cell()
    data = Dataset.of_arrays({"x": X}).bind(model)
    fed = [batch.feeds for batch in data]
    assert np.allclose(np.concatenate([f["h"] for f in fed]), states_of(X)[:-1], atol=1e-5)
    few = list(fitting(model, data.take(5)))
    assert np.allclose(
        np.concatenate([b.feeds["h"] for b in few]), states_of(X)[[0, 10, 20, 30, 40]], atol=1e-5
    )
    assert np.array_equal(np.concatenate([b.feeds["x"] for b in few]), X[::10])


def test_a_candidate_is_fed_its_own_states_and_judged_without_them() -> None:
    model, other = cell(), cell(gain=1.5)
    data = Dataset.of_arrays({"x": X}).bind(model).select(np.array([3, 49]), "two")
    found = [outputs for _, outputs in run_here(other, data, SessionConfig())]
    assert [list(o) for o in found] == [["y"], ["y"]]
    expected = states_of(X, 1.5)[1:] @ R
    assert np.allclose(np.concatenate([o["y"] for o in found]), expected[[3, 49]], atol=1e-5)


def test_fidelity_of_a_stream_is_one_of_itself_and_low_where_states_drift() -> None:
    data, model = Dataset.of_arrays({"x": X}), cell()
    same = evaluate(model, data, reference=model)
    assert (same.value, same.count) == (1.0, 50)
    assert [output.name for output in same.outputs] == ["y"]
    assert evaluate(cell(gain=3.0), data, "cosine", reference=model).value < 0.9


def test_each_batch_of_a_generator_is_a_sequence_and_reaches_the_metric_whole() -> None:
    lengths = (5, 9)

    def batches() -> Iterator[tuple[dict[str, Array], Array]]:
        for length in lengths:
            yield {"x": X[:length]}, np.zeros(length)

    data = Dataset.of_batches(batches).bind(cell())
    found = list(run_here(cell(), data, SessionConfig()))
    assert [batch.labels.shape for batch, _ in found if batch.labels is not None] == [(5,), (9,)]
    for length, (_, outputs) in zip(lengths, found, strict=True):
        assert np.allclose(outputs["y"], states_of(X[:length])[1:] @ R, atol=1e-5)
    fed = np.concatenate([batch.feeds["h"] for batch in data])
    assert np.allclose(fed[5:], states_of(X[:9])[:-1], atol=1e-5)


def test_rows_one_by_one_from_a_generator_are_one_sequence() -> None:
    data = Dataset.of_batches(lambda: ({"x": row[None]} for row in X)).bind(cell())
    found = [outputs["y"] for _, outputs in run_here(cell(), data, SessionConfig())]
    assert np.allclose(np.concatenate(found), states_of(X)[1:] @ R, atol=1e-5)


def test_a_measurement_is_fed_a_step_in_steady_state() -> None:
    fed = items_of(cell(), Dataset.of_arrays({"x": X}))(0)
    assert np.allclose(fed["h"][0], states_of(X)[STEADY], atol=1e-5)


def attention() -> Model:
    """Return attention of one position to all before it, whose keys and values are handed on."""
    node = helper.make_node
    return made(
        [
            node("Concat", ["past_key", "x"], ["present_key"], axis=1),
            node("Concat", ["past_value", "x"], ["present_value"], axis=1),
            node("Transpose", ["present_key"], ["t"], perm=[0, 2, 1]),
            node("MatMul", ["x", "t"], ["s"]),
            node("Softmax", ["s"], ["p"], axis=-1),
            node("MatMul", ["p", "present_value"], ["y"]),
        ],
        [
            floats("x", "n", "s", 4),
            *(floats(f"past_{k}", "n", "past", 4) for k in ("key", "value")),
        ],
        [
            floats("y", "n", "s", 4),
            *(floats(f"present_{k}", "n", "total", 4) for k in ("key", "value")),
        ],
    )


def test_a_cache_of_keys_and_values_grows_from_nothing() -> None:
    model, tokens = attention(), X[:, None]
    data = Dataset.of_arrays({"x": tokens}).bind(model)
    assert [batch.feeds["past_key"].shape[1] for batch in data] == list(range(50))
    found = [outputs["y"][0, 0] for _, outputs in run_here(model, data, SessionConfig())]
    scores = X.astype(np.float64) @ X.T
    for row, output in enumerate(found):
        weights = np.exp(scores[row, : row + 1] - scores[row, : row + 1].max())
        assert np.allclose(output, weights @ X[: row + 1] / weights.sum(), atol=1e-5)


def test_the_mask_and_the_positions_of_a_cache_follow_from_its_length() -> None:
    node, past, total = helper.make_node, "past", "past + s"
    numbers = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "s"])]
    for name, size in (("attention_mask", total), ("position_ids", "s")):
        numbers.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["n", size]))
    model = made(
        [
            node("Cast", ["ids"], ["f"], to=1),
            node("Concat", ["past_key_values.0.key", "f"], ["present.0.key"], axis=1),
            node("Cast", ["attention_mask"], ["m"], to=1),
            node("Mul", ["present.0.key", "m"], ["kept"]),
            node("ReduceSum", ["kept"], ["sum"], keepdims=1),
            node("Cast", ["position_ids"], ["p"], to=1),
            node("Sub", ["sum", "p"], ["y"]),
        ],
        [*numbers, floats("past_key_values.0.key", "n", past)],
        [floats("y", "n", "s"), floats("present.0.key", "n", total)],
    )
    ids = np.arange(3, 23)[:, None]
    data = Dataset.of_arrays({"ids": ids}).bind(model)
    found = [float(o["y"].reshape(())) for _, o in run_here(model, data, SessionConfig())]
    assert found == (np.cumsum(ids) - np.arange(20)).tolist()
    assert [batch.feeds["attention_mask"].shape for batch in data][-1] == (1, 20)


def test_a_scalar_beside_rows_holds_for_all_of_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, rate=np.array(16000, np.int64))
    for batch in Dataset.open(tmp_path / "d.npz", batch=20):
        assert batch.feeds["rate"] == 16000
        assert batch.feeds["rate"].shape == ()
        assert batch.size in {20, 10}


@pytest.mark.slow
def test_a_state_is_named_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, twin = tmp_path / "m.onnx", tmp_path / "twin.onnx"
    np.savez(tmp_path / "d.npz", x=X[:20])
    cell("foo", "y2").save(model)
    cell("foo", "y2", gain=0.5).save(twin)
    data = ["--data", str(tmp_path / "d.npz"), "--state", "foo=y2"]
    assert main(["eval", str(twin), "--reference", str(model), "--metric", "cosine", *data]) == 0
    captured = capsys.readouterr()
    assert "states fed back: foo=y2" in captured.err
    assert "on 20 items" in captured.out
    assert main(["quantize", str(model), "-o", str(tmp_path / "q.onnx"), *data]) == 0
    assert main(["eval", str(model), *data[:3], "foo"]) == 2
    assert "Give INPUT=OUTPUT" in capsys.readouterr().err
