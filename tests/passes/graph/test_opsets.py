from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.passes.graph.forms.raise_opset import raise_opset


def old(
    opset: int, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], **ir: int
) -> Model:
    info = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    fed = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in weights.items()]
    inputs = [info[0], *(fed if ir["ir_version"] < 4 else [])]
    body = helper.make_graph(nodes, "g", inputs, info[1:], stored)
    opsets = [helper.make_opsetid("", opset)]
    return Model.from_proto(helper.make_model(body, opset_imports=opsets, **ir))


SCALES = {"twice": [1, 1, 2, 2], "odd": [1, 1, 1.5, 2.5], "half": [1, 1, 0.5, 0.5]}


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("opset", "op"), [(9, "Upsample"), (10, "Resize")])
def test_old_operators_of_size_choose_the_same_pixels(mode, scale, opset, op):
    if (opset, scale) == (9, "half"):
        pytest.skip("Upsample cannot make an image smaller")
    weights = {"s": np.array(SCALES[scale], np.float32)}
    before = old(opset, [helper.make_node(op, ["x", "s"], ["y"], mode=mode)], weights, ir_version=5)
    after = raise_opset(before, 13)
    assert after.opset == 13
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)}
    expected, got = (run(build_session(m, SessionConfig()), feeds)["y"] for m in (before, after))
    np.testing.assert_allclose(got, expected, atol=1e-6)
