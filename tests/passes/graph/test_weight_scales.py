from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import concat, graph, normal

from trimtab.core.context import Context
from trimtab.core.target import Target
from trimtab.passes.calibration.concat_ranges import share_ranges
from trimtab.passes.graph.stored.weight_scales import thresholds
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def squared_error(values, limit, largest=127):
    scale = limit / largest
    return np.square(np.clip(np.round(values / scale), -largest, largest) * scale - values).sum()


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_thresholds_are_never_worse_than_the_largest_magnitude(axis):
    values = np.random.default_rng(0).standard_t(3, (6, 500)).astype(np.float32)
    found = thresholds(values, axis, 127)
    channels = [values] if axis is None else list(np.moveaxis(values, axis, 0))
    limits = found.reshape(-1)
    assert len(limits) == len(channels)
    for channel, limit in zip(channels, limits, strict=True):
        assert squared_error(channel, limit) <= squared_error(channel, np.abs(channel).max())


def test_a_dead_channel_is_allowed():
    assert np.isfinite(thresholds(np.zeros((2, 3), np.float32), 0, 127)).all()


def test_searched_scales_leave_the_callers_weights_as_they_were():
    # Many even values and one a little beyond: clipping that one pays.
    weight = np.random.default_rng(0).uniform(-1, 1, (4, 20_000)).astype(np.float32)
    weight[:, 7] = 1.05
    model = graph(
        "g (float[N, 20000] x) => (float[N, 4] y) { y = Gemm <transB = 1> (x, w) }", w=weight
    )
    digest = model.digest
    data = normal(model, rows=8)
    scales = [
        QuantizeStatic(data=data, scales=s)(model, VNNI)
        .graph.initializers["w_scale"]
        .const_value.numpy()
        for s in ("absmax", "mse")
    ]
    assert (scales[1] < 0.97 * scales[0]).all()
    assert model.digest == digest


def test_branches_of_a_concat_share_one_range():
    ranges = share_ranges(concat().graph, {"a": (-1.0, 2.0), "b": (-2.0, 1.0), "c": (-1.5, 2.0)})
    assert set(ranges.values()) == {(-2.0, 2.0)}


def test_a_branch_that_would_lose_much_keeps_its_own_range():
    ranges = share_ranges(concat().graph, {"a": (-0.1, 0.1), "b": (-2.0, 2.0), "c": (-2.0, 2.0)})
    assert ranges["a"] == (-0.1, 0.1)


def test_a_branch_with_another_reader_keeps_its_own_range():
    model = graph(
        """g (float[N, 4] x) => (float[N, 8] y, float[N, 4] z) {
          a = Relu (x)
          y = Concat <axis = 1> (a, x)
          z = Neg (a)
        }"""
    )
    ranges = share_ranges(model.graph, {"a": (0.0, 1.0), "x": (-1.0, 1.0), "y": (-1.0, 1.0)})
    assert ranges["a"] == (0.0, 1.0)
