"""Images of three channels given a fourth of zeros: where, and that nothing else changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from int8_graphs import graph, normal

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes import Dequantize, QuantizeStatic, RoundWeights
from trimtab.passes.diagnosis.accuracy import diagnose_accuracy
from trimtab.passes.quantization.qdq.fill_channels import fill_input_channels

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def images(
    channels: int = 3, outputs: int = 16, kernel: int = 3, stride: int = 1, before: str = "p = x"
) -> Model:
    text = f"""g (float[N, {channels}, 12, 12] x) => (float[N, {outputs}, H, W] y) {{
          {"" if before == "p = x" else before}
          a = Conv <strides = [{stride}, {stride}]> ({"x" if before == "p = x" else "p"}, w1)
          y = Relu (a)
        }}"""
    return graph(text, w1=(outputs, channels, kernel, kernel), mean=(1, channels, 1, 1))


def quantized(model: Model, ctx: Context = VNNI, **options: object) -> Model:
    return QuantizeStatic(data=normal(model), **options)(model, ctx)


def filled(model: Model) -> int:
    return model.lineage[-1].notes["forms"].get("channels-filled", 0)


@pytest.mark.parametrize("target", ["x64-avx512-vnni", "x64-avx2"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_channels_of_zeros_change_no_bit_where_sums_do_not_saturate(
    channels: int, target: str
) -> None:
    """Weights of 8 bits under exact sums, and weights of 7 bits under any."""
    model = images(channels)
    ctx = Context(target=Target.named(target))
    other = dataclasses.replace(ctx.target, isa="any")
    as_it_was, after = quantized(model, Context(target=other)), quantized(model, ctx)
    assert (filled(as_it_was), filled(after)) == (0, 1)
    weight = next(v for v in after.graph.initializers.values() if len(v.shape or ()) == 4)
    assert weight.shape == (16, channels + -channels % 4, 3, 3)
    feeds = random_feeds(model, batch=2)
    for level in ("basic", "all"):
        config = dataclasses.replace(SessionConfig.for_evaluation(ctx.target), level=level)
        one, two = (run(build_session(m, config), feeds)["y"] for m in (as_it_was, after))
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"channels": 4}, 0),
        ({"outputs": 12}, 0),
        ({"kernel": 4, "stride": 4}, 0),  # patches are copied out once each
        ({"kernel": 1}, 1),
        ({"kernel": 5, "stride": 4}, 1),
        ({"before": "p = Sub (x, mean)"}, 1),
    ],
)
def test_channels_are_filled_where_it_is_faster(options: dict[str, object], count: int) -> None:
    assert filled(quantized(images(**options))) == count


def test_images_are_unchanged_for_other_kernels() -> None:
    model = images()
    assert filled(quantized(model, Context(target=Target.named("arm64")))) == 0
    assert filled(quantized(model, activation="int8")) == 0


def test_an_image_that_two_layers_read_is_unchanged() -> None:
    model = graph(
        """g (float[N, 3, 12, 12] x) => (float[N, 16, H, W] y) {
          a = Conv (x, w1)
          b = Conv (x, w2)
          y = Add (a, b)
        }""",
        w1=(16, 3, 3, 3),
        w2=(16, 3, 3, 3),
    )
    assert filled(quantized(model)) == 0


def test_channels_are_filled_once() -> None:
    assert fill_input_channels(quantized(images()).clone().graph) == 0


def test_rounding_and_dequantize_accept_the_wider_weight(tmp_path: Path) -> None:
    model = images()
    pixels = next(
        iter(normal(model).sized(32))
    ).feeds  # pixels that are much alike, so that rounding has what to mend
    data = Dataset.of_arrays({"x": (2 + 0.1 * pixels["x"]).astype(np.float32)})
    after = QuantizeStatic(data=data)(model, VNNI)
    reference = model.save(tmp_path / "float.onnx")
    rounded = RoundWeights(data=data, reference=str(reference))(after, VNNI)
    notes = rounded.lineage[-1].notes
    assert notes["squared_relative_error_after"] < notes["squared_relative_error_before"]
    weight = next(v for v in rounded.graph.initializers.values() if len(v.shape or ()) == 4)
    assert weight.const_value is not None
    assert not weight.const_value.numpy()[:, 3].any()
    back = Dequantize()(after, VNNI)
    feeds = dict(next(iter(data.sized(4))).feeds)
    expected, got = (run(build_session(m), feeds)["y"] for m in (model, back))
    assert np.abs(expected - got).max() < 0.05 * np.abs(expected).max()


def test_the_doctor_recognises_the_image_and_the_weight() -> None:
    model = images()
    found = diagnose_accuracy(quantized(model), normal(model), Context(), baseline=model, samples=8)
    layers = {layer["layer"]: layer for layer in found.to_json()["layers"]}
    assert "x" in layers
    assert not any("filled" in name for name in layers)
    assert any(layer["weight_snr_db"] for layer in layers.values())
