"""Operators with many attributes against onnxruntime, over generated shapes and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch_cases import agrees, floats, ints, one_node, same

from trimtab.passes.training.torch_graph import to_module

few = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
RANKS = st.integers(1, 3)
SIZES = st.integers(4, 9)


@st.composite
def windows(draw: Any, *, ceil: bool = False, dilated: bool = True) -> dict[str, Any]:
    """Sizes of an input, and the attributes of a window over it."""
    rank = draw(RANKS)
    listed = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    kernel, strides = listed(1, 3), listed(1, 3)
    made = {"kernel_shape": kernel, "strides": strides}
    made["dilations"] = listed(1, 2) if dilated else [1] * rank
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto == "NOTSET":
        begin = [draw(st.integers(0, k - 1)) for k in kernel]
        even = draw(st.booleans())
        made["pads"] = begin + (begin if even else [draw(st.integers(0, k - 1)) for k in kernel])
    else:
        # onnxruntime takes no dilation with its own padding.
        made |= {"auto_pad": auto, "dilations": [1] * rank}
        # nor a pool whose strides leave elements out.
        made["strides"] = [min(s, k) for s, k in zip(strides, kernel, strict=True)]
    if ceil and auto == "NOTSET":
        made["ceil_mode"] = draw(st.integers(0, 1))
    return {"sizes": listed(5, 9), "attributes": made}


@pytest.mark.slow
@few
@given(windows(), st.sampled_from([(1, 3, 4), (2, 2, 4), (3, 1, 2)]), st.booleans())
def test_conv(window: dict, channels: tuple[int, int, int], biased: bool) -> None:
    group, inputs, outputs = channels
    kernel = window["attributes"]["kernel_shape"]
    weights = {"w": floats(group * outputs, inputs, *kernel)}
    weights |= {"b": floats(group * outputs)} if biased else {}
    x = floats(2, group * inputs, *window["sizes"])
    same("Conv", {"x": x}, weights, group=group, **window["attributes"])


@pytest.mark.slow
@few
@given(windows(), st.sampled_from([1, 2]), st.data())
def test_conv_transpose(window: dict, group: int, data: st.DataObject) -> None:
    attributes = window["attributes"]
    assume(attributes.get("auto_pad", "NOTSET") in {"NOTSET", "VALID"})
    strides = attributes["strides"]
    added = [data.draw(st.integers(0, s - 1)) for s in strides]
    weights = {"w": floats(2 * group, 3, *attributes["kernel_shape"]), "b": floats(3 * group)}
    x = floats(2, 2 * group, *window["sizes"])
    same("ConvTranspose", {"x": x}, weights, group=group, output_padding=added, **attributes)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [3, 4])
def test_conv_transpose_that_pads_itself(auto: str, kernel: int) -> None:
    weights = {"w": floats(2, 3, kernel, kernel)}
    same("ConvTranspose", {"x": floats(1, 2, 5, 6)}, weights, auto_pad=auto, strides=[2, 2])


def test_conv_transpose_to_a_shape() -> None:
    weights = {"w": floats(2, 3, 3, 3)}
    x = {"x": floats(1, 2, 5, 6)}
    same("ConvTranspose", x, weights, output_shape=[10, 12], strides=[2, 2])


@few
@given(windows(ceil=True), st.sampled_from([8, 12, 18, 22]))
def test_max_pool(window: dict, opset: int) -> None:
    attributes = window["attributes"]
    if opset == 8:
        attributes.pop("dilations"), attributes.pop("ceil_mode", None)
    same("MaxPool", {"x": floats(2, 3, *window["sizes"])}, opset=opset, **attributes)


@few
@given(windows(ceil=True, dilated=False), st.integers(0, 1), st.sampled_from([9, 11, 19]))
def test_average_pool(window: dict, include: int, opset: int) -> None:
    attributes = window["attributes"]
    if opset < 19:
        attributes.pop("dilations")
    if opset == 9:
        attributes.pop("ceil_mode", None)
    x = floats(2, 3, *window["sizes"])
    same("AveragePool", {"x": x}, opset=opset, count_include_pad=include, **attributes)


@few
@given(st.data())
def test_slice(data: st.DataObject) -> None:
    x = floats(*data.draw(st.lists(SIZES, min_size=1, max_size=4)))
    axes = data.draw(st.lists(st.integers(-x.ndim, x.ndim - 1), unique_by=lambda a: a % x.ndim,
                              min_size=1))  # fmt: skip
    ends = st.one_of(st.integers(-12, 12), st.sampled_from([2**63 - 1, -(2**63) + 1]))
    parts = [
        data.draw(st.lists(kind, min_size=len(axes), max_size=len(axes)))
        for kind in (st.integers(-10, 10), ends, st.sampled_from([-3, -2, -1, 1, 2, 3]))
    ]
    constants = {"s": ints(*parts[0]), "e": ints(*parts[1]), "a": ints(*axes), "t": ints(*parts[2])}
    same("Slice", {"x": x}, constants)


def test_slice_before_opset_10() -> None:
    x = {"x": floats(5, 6)}
    same("Slice", x, opset=9, starts=[1, -3], ends=[9, -1])
    same("Slice", x, opset=9, starts=[-2], ends=[2**31 - 1], axes=[1])


@few
@given(st.data(), st.sampled_from(["constant", "reflect", "edge", "wrap"]))
def test_pad(data: st.DataObject, mode: str) -> None:
    x = floats(*data.draw(st.lists(SIZES, min_size=1, max_size=4)))
    low = -1 if mode == "constant" else 0
    sides = data.draw(st.lists(st.integers(low, 3), min_size=2 * x.ndim, max_size=2 * x.ndim))
    value = {"v": np.array(0.5, np.float32)} if mode == "constant" else {}
    same("Pad", {"x": x}, {"p": ints(*sides)} | value, mode=mode, opset=19)


def test_pad_of_some_axes_and_before_opset_11() -> None:
    x = {"x": floats(2, 3, 4)}
    given = {"p": ints(1, 2), "a": ints(-1)}
    same("Pad", x, given, inputs=["x", "p", "", "a"], opset=18)
    same("Pad", x, opset=9, pads=[0, 1, 0, 0, 2, 0], value=2.0)


COORDINATES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel",
               "half_pixel_symmetric"]  # fmt: skip


@few
@given(
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(COORDINATES),
    st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    st.tuples(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), st.sampled_from([0.5, 2.0, 2.25])),
    st.booleans(),
)
def test_resize(
    mode: str, how: str, nearest: str, scales: tuple[float, float], by_size: bool
) -> None:
    x = floats(2, 3, 6, 8)
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": how}
    attributes |= {"nearest_mode": nearest} if mode == "nearest" else {}
    if by_size:
        sizes = ints(2, 3, *(int(s * f) for s, f in zip((6, 8), scales, strict=True)))
        same("Resize", {"x": x}, {"n": sizes}, inputs=["x", "", "", "n"], opset=19, **attributes)
    else:
        given = {"s": np.array([1, 1, *scales], np.float32)}
        same("Resize", {"x": x}, given, inputs=["x", "", "s"], opset=19, **attributes)


def test_resize_in_older_operator_sets() -> None:
    x = {"x": floats(1, 2, 4, 4)}
    for mode in ("nearest", "linear"):
        given = {"s": np.array([1, 1, 2, 2], np.float32)}
        same("Resize", x, given, opset=10, mode=mode)
        same("Upsample", x, given, opset=9, mode=mode)
        same("Upsample", x, opset=7, mode=mode, scales=[1.0, 1.0, 2.0, 2.0])
    given = {"s": np.array([2, 3], np.float32)}
    same("Resize", x, given, inputs=["x", "", "s"], opset=18, mode="linear", axes=[2, 3])


def test_cubic_with_exclude_outside() -> None:
    given = {"s": np.array([1, 1, 2, 1.5], np.float32)}
    attributes = {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}
    same("Resize", {"x": floats(1, 2, 6, 6)}, given, inputs=["x", "", "s"], **attributes)


@pytest.mark.parametrize(("inputs", "outputs", "pads"), [(4, 8, 0), (6, 8, 0), (6, 8, 1)])
def test_strided_convolutions_of_one_element_have_right_gradients_with_channels_last(
    inputs: int, outputs: int, pads: int
) -> None:
    """torch's own path writes past its memory here, which ended the process or changed numbers."""
    weight = floats(outputs, inputs, 1, 1, seed=1)
    feeds = {"x": floats(3, inputs, 8, 8)}
    model = one_node("Conv", feeds, {"w": weight}, strides=[2, 2], pads=[pads] * 4)
    agrees(model, feeds)
    module = to_module(model).to(memory_format=torch.channels_last)
    x = torch.from_numpy(feeds["x"]).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    for _ in range(5):
        x.grad = None
        module.zero_grad()
        module(x).square().sum().backward()
    twin = torch.from_numpy(feeds["x"]).double().requires_grad_()
    kernel = torch.from_numpy(weight).double().requires_grad_()
    torch.conv2d(twin, kernel, stride=2, padding=pads).square().sum().backward()
    torch.testing.assert_close(x.grad.double(), twin.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module.weight("w").grad.double(), kernel.grad, rtol=1e-4, atol=1e-3)
