"""Quantized models as the functions that they round."""

from __future__ import annotations

import channel_cases
import graphs
import numpy as np
import pytest

from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.passes.base import relative_error
from trimtab.passes.pruning.structured.remove_rounding import without_rounding


def chain(count: str, axis: str = "") -> Model:
    """A convolution whose output is quantized by one scale, or by one for each of 4 channels."""
    shape = [4] if count else []
    return graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) <float[4,3,1,1] w, float[N, 4, 8, 8] a, "
        f"float{count} s, uint8{count} z> {{ a = Conv(x, w) "
        f"q = QuantizeLinear{axis}(a, s, z) y = DequantizeLinear{axis}(q, s, z) }}",
        s=np.full(shape, 0.5, np.float32),
        z=np.full(shape, 128, np.uint8),
    )


def outputs(model: Model) -> np.ndarray:
    feeds = random_feeds(model, batch=2)
    return run(build_session(model, SessionConfig(level="basic")), feeds)["y"]


@pytest.mark.parametrize(("count", "axis"), [("", ""), ("[4]", "<axis=1>")])
def test_pairs_only_scale_and_outputs_keep_their_names(count: str, axis: str) -> None:
    model = chain(count, axis)
    plain = graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) <float[4,3,1,1] w> { y = Conv(x, w) }",
        w=graphs.weights_of(model)["w"],
    )
    smooth = without_rounding(model)
    assert relative_error(outputs(plain), outputs(smooth)) < 1e-6
    assert relative_error(outputs(plain), outputs(model)) > 1e-3
    assert smooth.outputs == model.outputs


def test_a_float_model_is_returned_as_it_is() -> None:
    model = channel_cases.cases(8)["residual"]
    assert without_rounding(model) is model
