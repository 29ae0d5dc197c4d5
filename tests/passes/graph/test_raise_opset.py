from __future__ import annotations

import numpy as np
import onnx
import pytest

from trimtab.core.errors import ModelError
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.passes.graph.forms.raise_opset import raise_opset


def old(body: str, opset: int = 9) -> Model:
    text = f'<ir_version: 3, opset_import: ["" : {opset}]>\n{body}'
    proto = onnx.parser.parse_model(text)
    for value in list(proto.graph.input)[1:]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    return Model.from_proto(proto, "old")


def test_a_model_is_converted_and_its_interface_stays():
    model = old("g (float[N, 4] x, float[4, 3] w) => (float[N, 3] y) { y = MatMul (x, w) }")
    made = raise_opset(model, 13)
    assert made.opset == 13
    assert (made.inputs, made.outputs) == (model.inputs, model.outputs)
    feeds = {"x": np.ones((2, 4), np.float32)}
    a, b = (run(build_session(m), feeds)["y"] for m in (model, made))
    np.testing.assert_array_equal(a, b)


def test_a_new_enough_model_is_returned_itself():
    model = old("g (float[4] x) => (float[4] y) { y = Neg (x) }", opset=11)
    assert raise_opset(model, 11) is model


def test_a_model_of_another_domain_alone_needs_no_conversion():
    """As one that scikit-learn's trees became, which names no operator set of ONNX itself."""
    text = """<ir_version: 8, opset_import: ["ai.onnx.ml" : 3]>
        g (float[N, 4] x) => (float[N, 4] y) { y = ai.onnx.ml.Normalizer <norm = "L2"> (x) }"""
    model = Model.from_proto(onnx.parser.parse_model(text), "tabular")
    made = raise_opset(model, 13)
    assert made.opset == 13
    feeds = {"x": np.ones((2, 4), np.float32)}
    assert run(build_session(made), feeds)["y"].tolist() == [[0.5] * 4] * 2


def test_what_cannot_be_converted_is_refused_with_advice():
    model = old("g (float[2, 4] x) => (float[2, 4] y) { y = Unknown (x) }")
    with pytest.raises(ModelError, match="opset 9, 13 is needed"):
        raise_opset(model, 13)
