from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model_of
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from trimtab.core.errors import ModelError
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session
from trimtab.core.sparse import densify, sparsify, store_sparse, stores_sparse

TEXT = """(float[N,16] x) => (float[N,16] y) <float[16,16] w, float[16] b, float[16,16] v> {
    a = Gemm (x, w, b)
    y = MatMul (a, v)
}"""


def sparse_model(dtype: str = "float", share: float = 0.1) -> Model:
    rng = np.random.default_rng(0)
    kind = {"float": np.float32, "float16": np.float16, "double": np.float64}[dtype]
    weight = np.where(rng.random((16, 16)) < share, rng.standard_normal((16, 16)), 0).astype(kind)
    model = model_of(TEXT.replace("float", dtype), w=weight)
    store_sparse(model.ir)
    return model


def saved(model: Model) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.to_bytes())


@pytest.mark.parametrize("dtype", ["float", "float16", "double"])
def test_weights_that_are_smaller_sparse_are_stored_sparse_and_read_back(tmp_path, dtype):
    model = sparse_model(dtype)
    assert [t.values.name for t in saved(model).graph.sparse_initializer] == ["w"]
    again = Model.load(model.save(tmp_path / "model.onnx"))
    assert stores_sparse(again.ir)
    assert again.digest == model.digest
    assert again.to_bytes() == model.to_bytes()
    for name, value in model.graph.initializers.items():
        got = again.graph.initializers[name].const_value.numpy()
        np.testing.assert_array_equal(value.const_value.numpy(), got)
    build_session(tmp_path / "model.onnx")


def test_the_message_for_other_tools_stays_dense():
    assert not sparse_model().to_proto().graph.sparse_initializer


def test_nothing_is_sparse_where_the_model_does_not_ask():
    model = sparse_model()
    del model.ir.metadata_props["trimtab.store"]
    assert not saved(model).graph.sparse_initializer


def test_minus_zero_is_read_back():
    model = sparse_model()
    weight = np.zeros((16, 16), np.float32)
    weight[3, 4] = -0.0
    proto = model.to_proto()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    again = Model.from_proto(saved(Model.from_proto(proto)))
    got = again.graph.initializers["w"].const_value.numpy()
    assert np.signbit(got[3, 4])
    assert np.signbit(got).sum() == 1


def test_integers_and_graph_inputs_stay_dense():
    proto = sparse_model().to_proto()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [16, 16]))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((64, 64), np.int8), "q"))
    assert sparsify(proto) == []


def test_the_saved_form_passes_the_checker_and_shape_inference():
    proto = sparse_model().to_proto()
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("w", 1, [16, 16]))
    sparsify(proto)
    onnx.checker.check_model(proto)
    onnx.shape_inference.infer_shapes(proto, strict_mode=True)


def test_densify_does_not_change_its_argument():
    proto = saved(sparse_model())
    data = proto.SerializeToString()
    assert densify(proto) is not proto
    assert proto.SerializeToString() == data
    dense = densify(proto)
    assert densify(dense) is dense


@settings(max_examples=30, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 4))))
def test_coordinates_are_read_like_linear_indices(places):
    dense = np.zeros((4, 5), np.float32)
    for row, column in places:
        dense[row, column] = row + column + 1
    pairs = np.array(sorted(places), np.int64).reshape(-1, 2)
    values = dense[pairs[:, 0], pairs[:, 1]]
    proto = onnx.ModelProto()
    proto.graph.sparse_initializer.append(
        onnx.SparseTensorProto(
            values=numpy_helper.from_array(values, "w"),
            indices=numpy_helper.from_array(pairs, "i"),
            dims=[4, 5],
        )
    )
    got = numpy_helper.to_array(densify(proto).graph.initializer[0])
    np.testing.assert_array_equal(got, dense)


@pytest.mark.parametrize(
    ("indices", "dims"),
    [
        ([0, 99], [2, 2]),
        ([0, -1], [2, 2]),
        ([0], [2, 2]),
        ([[0, 5], [0, 0]], [2, 2]),
        ([[0, 0, 0], [0, 0, 1]], [2, 2]),
        ([0, 1], [1 << 40, 2]),
        ([0, 1], [-2, -2]),
    ],
)
def test_refuses_indices_that_do_not_fit(indices, dims):
    proto = onnx.ModelProto()
    proto.graph.sparse_initializer.append(
        onnx.SparseTensorProto(
            values=numpy_helper.from_array(np.ones(2, np.float32), "w"),
            indices=numpy_helper.from_array(np.array(indices, np.int64), "i"),
            dims=dims,
        )
    )
    with pytest.raises(ModelError, match="sparse initializer 'w'"):
        densify(proto)
