from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from int8_graphs import graph, normal

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.ort.overflow import find_overflows
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))
AVX2 = Context(target=Target.named("x64-avx2"))


def positive(model, rows=32):
    """Large positive inputs, as behind a ReLU, and some small ones."""
    data = normal(model, rows)
    feeds = next(iter(data.sized(rows))).feeds
    return Dataset.of_arrays({n: np.abs(a) for n, a in feeds.items()})


def product(first=1.0, second=1.0):
    """One output whose first two weights are the largest; the rest are small."""
    w = np.full((1, 8), 0.01, np.float32)
    w[0, :2] = first, second
    return graph(
        "g (float[N, 8] x) => (float[N, 1] y) { [dense] y = Gemm <transB = 1> (x, w) }", w=w
    )


def test_two_large_neighbours_saturate_and_the_layer_is_named():
    model = product()
    quantized = QuantizeStatic(data=positive(model))(model, VNNI)
    (found,) = find_overflows(quantized, positive(model))
    assert found.node == "dense"
    assert 0 < found.share < 0.25  # one pair of four, and only where both inputs are large
    assert 32767 < found.largest <= 255 * 254
    assert 0 < found.lost < 1


def test_the_count_is_that_of_the_formula():
    model = product()
    data = positive(model)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    values = quantized.graph.initializers
    scale = next(v for n, v in values.items() if n == "x_scale").const_value.numpy()
    x = next(iter(data)).feeds["x"]
    a = np.clip(np.round(x / scale), 0, 255).astype(int)
    expected = int(np.count_nonzero(a[:, 0] * 127 + a[:, 1] * 127 > 32767))
    (found,) = find_overflows(quantized, data)
    assert found.saturated == expected


@pytest.mark.parametrize("case", ["signs cancel", "seven bits", "unsigned weights"])
def test_layers_that_cannot_saturate_are_not_reported(case):
    model = product(second=-1.0 if case == "signs cancel" else 1.0)
    ctx = AVX2 if case == "seven bits" else VNNI
    kind = "uint8" if case == "unsigned weights" else None
    quantized = QuantizeStatic(data=positive(model), weight=kind)(model, ctx)
    assert find_overflows(quantized, positive(model)) == []


def test_convolutions_pair_channels_of_one_kernel_position():
    w = np.full((1, 4, 3, 3), 0.01, np.float32)
    w[0, 0, 0, 0] = w[0, 1, 0, 0] = 1  # two channels, the same position: neighbours
    apart = np.full((1, 4, 3, 3), 0.01, np.float32)
    apart[0, 0, 0, 0] = apart[0, 0, 0, 1] = 1  # one channel, two positions: none
    text = "g (float[N, 4, 6, 6] x) => (float[N, 1, 3, 3] y) { y = Conv <strides = [2, 2], "
    text += "pads = [1, 1, 1, 1]> (x, w) }"
    found = []
    for weight in (w, apart):
        model = graph(text, w=weight)
        quantized = QuantizeStatic(data=positive(model))(model, VNNI)
        found.append(find_overflows(quantized, positive(model)))
    assert [len(layers) for layers in found] == [1, 0]


def test_grouped_and_dilated_convolutions_and_small_images():
    model = graph(
        """g (float[N, 8, 3, 3] x) => (float[N, 4, 3, 3] y) {
          a = Conv <group = 2, dilations = [2, 2], pads = [2, 2, 2, 2]> (x, w)
          b = Relu (a)
          y = Conv <pads = [1, 1, 1, 1]> (b, v)
        }""",
        w=np.abs(np.random.default_rng(0).standard_normal((6, 4, 3, 3))).astype(np.float32),
        v=np.ones((4, 6, 3, 3), np.float32),
    )
    quantized = QuantizeStatic(data=positive(model))(model, VNNI)
    assert find_overflows(quantized, positive(model))


@pytest.mark.parametrize("second", [1.0, -1.0], ids=["large neighbours", "signs cancel"])
def test_the_kernels_of_this_machine_agree_with_the_simulation(second):
    model = product(second=second)
    data = positive(model)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    feeds = next(iter(data)).feeds
    exact = SessionConfig(config={"session.x64quantprecision": "1"})
    deployed, wide = (run(build_session(quantized, c), feeds)["y"] for c in (None, exact))
    here = Target.detect()
    saturates = here.isa == "x64" and not here.vnni
    named = bool(find_overflows(quantized, data))
    assert (deployed != wide).any() == (saturates and named)


def test_the_pass_reports_overflow_on_request_and_where_the_target_saturates():
    model = product()
    data = positive(model)
    asked = QuantizeStatic(data=data, check_overflow=True)(model, VNNI)
    (layer,) = asked.lineage[-1].notes["overflow"]
    assert layer["node"] == "dense"
    assert layer["over"] > 1
    assert "overflow" not in QuantizeStatic(data=data)(model, VNNI).lineage[-1].notes
    assert QuantizeStatic(data=data)(model, AVX2).lineage[-1].notes["overflow"] == []
    wide = dataclasses.replace(AVX2.target, reduce_range=False)
    told = QuantizeStatic(data=data)(model, Context(target=wide))
    assert told.lineage[-1].notes["overflow"]
