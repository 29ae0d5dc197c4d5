"""Structured pruning of graphs as files have them: the same answers, or a reason to decline."""

from __future__ import annotations

from typing import Any

import graphs
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from channel_models import TARGET, step

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.passes.pruning.channels import PruneChannels

HEAD = "c = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(c) "
WEIGHTS = "float[16,3,3,3] w, float[16] b"
#: Numbers of the channels that are zero.
ZEROED = [1, 5, 9, 13]

#: Rest of the graph, its other weights, opset, outputs.
CASES: dict[str, tuple[str, str, int, str]] = {
    "flattened": (
        "f = Flatten(r) y = Gemm<transB=1>(f, v, vb)",
        "float[5,1024] v, float[5] vb",
        17,
        "5",
    ),
    "reshaped": (
        "f = Reshape(r, s) y = MatMul(f, v)",
        "float[1024,5] v, int64[2] s={-1,1024}",
        17,
        "5",
    ),
    "twice in a Concat": ("j = Concat<axis=1>(r, r) y = Conv(j, v)", "float[4,32,1,1] v", 17, ""),
    "Concat of one": ("j = Concat<axis=-3>(r) y = Conv(j, v)", "float[4,16,1,1] v", 17, ""),
    "squared": ("m = Mul(r, r) q = Add(m, r) y = Conv(q, v)", "float[4,16,1,1] v", 17, ""),
    "split unevenly": (
        "u, t = Split<axis=1>(r, sp) q = Neg(t) j = Concat<axis=1>(q, u) y = Conv(j, v)",
        "int64[2] sp={4,12}, float[4,16,1,1] v",
        17,
        "",
    ),
    "split by an attribute": (
        "u, t = Split<axis=1, split=[4,12]>(r) j = Concat<axis=1>(t, u) y = Conv(j, v)",
        "float[4,16,1,1] v",
        11,
        "",
    ),
    "a convolution called twice": (
        "p = Conv<pads=[1,1,1,1]>(r, k) q = Relu(p) s = Conv<pads=[1,1,1,1]>(q, k) y = Conv(s, v)",
        "float[16,16,3,3] k, float[4,16,1,1] v",
        17,
        "",
    ),
    "ConvTranspose in groups": (
        "t = ConvTranspose<kernel_shape=[1,1], group=4>(r, k, kb) y = Conv(t, v)",
        "float[16,3,1,1] k, float[12] kb, float[4,12,1,1] v",
        17,
        "",
    ),
    "opset 7": ("d = Dropout<ratio=0.5>(r) y = Conv(d, v)", "float[4,16,1,1] v", 7, ""),
    "an inner tensor is an output": (
        "k = Conv<pads=[1,1,1,1]>(r, v) q = Relu(k) y = Conv(q, u)",
        "float[16,16,3,3] v, float[4,16,1,1] u",
        17,
        "q",
    ),
    "a weight is an output": ("y = Conv(r, v)", "float[4,16,1,1] v", 17, "w"),
    "a number is added": (
        "k = Conv<pads=[1,1,1,1]>(r, v) n = ReduceMax<keepdims=0>(x) q = Add(k, n) y = Conv(q, u)",
        "float[16,16,3,3] v, float[4,16,1,1] u",
        17,
        "",
    ),
    "names as the pass gives them": (
        "w_cut = Neg(r) v_cut = Conv(w_cut, v) b_cut = Relu(v_cut) y = Conv(b_cut, u)",
        "float[12,16,1,1] v, float[4,12,1,1] u",
        17,
        "",
    ),
    "a weight read inside of an If": (
        "k = Conv(r, v) s = If(yes) <then_branch = t () => (ty) { ty = ReduceSum<keepdims=0>(w) }, "
        "else_branch = e () => (ey) { ey = ReduceMax<keepdims=0>(w) }> y = Add(k, s)",
        "float[4,16,1,1] v, bool yes={1}",
        17,
        "",
    ),
}


def model_with_zeros(name: str) -> Model:
    body, weights, opset, outputs = CASES[name]
    shape = "float[N,5] y" if outputs == "5" else "float[N,4,8,8] y"
    shape += {"q": ", float[N,16,8,8] q", "w": ", float[16,3,3,3] w"}.get(outputs, "")
    text = f"(float[N,3,8,8] x) => ({shape}) <{WEIGHTS}, {weights}> {{ {HEAD} {body} }}"
    model = graphs.model_of(text, opset=opset)
    for weight in ("w", "b"):
        value = model.graph.initializers[weight]
        array = np.array(value.const_value.numpy())
        array[ZEROED] = 0
        value.const_value = ir.tensor(array, name=weight)
    return model


def size_of_rows(graph: Any) -> np.ndarray:
    """Return the size of all that produces a unit, far from nothing where nothing does."""
    scores = np.zeros(graph.num_units)
    for row in graph.weight_axes:
        if row.produces:
            array = np.moveaxis(row.operand.array(), row.axis, 0)
            np.add.at(scores, row.units, np.abs(array.reshape(len(array), -1)).sum(axis=1))
    return scores


@pytest.mark.parametrize("name", CASES)
def test_channels_of_zeros_leave_without_a_trace(name: str) -> None:
    model = model_with_zeros(name)
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    want = run(build_session(model), {"x": x})
    heads = "narrow" if "groups" in name else "whole"
    how = PruneChannels(0.01, block=1, importance=size_of_rows, heads=heads)
    after = how(model, Context())
    onnx.checker.check_model(after.to_proto(), full_check=True)
    got = run(build_session(after), {"x": x})
    assert step(after)["channels"][1] < step(after)["channels"][0]
    for output, array in want.items():
        np.testing.assert_allclose(got[output], array, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_repair_runs_and_stays_close(name: str) -> None:
    model = model_with_zeros(name)
    rows = np.random.default_rng(1).standard_normal((64, 3, 8, 8)).astype(np.float32)
    ctx = Context(target=TARGET, data=Dataset.of_arrays({"x": rows[:48]}))
    want = run(build_session(model), {"x": rows[48:]})
    errors = []
    for repair in ("none", "auto"):
        after = PruneChannels(0.3, block=1, repair=repair)(model, ctx)
        onnx.checker.check_model(after.to_proto(), full_check=True)
        got = run(build_session(after), {"x": rows[48:]})
        errors.append(
            sum(float(np.square(got[n] - a).sum() / np.square(a).sum()) for n, a in want.items())
        )
    assert errors[1] <= 1.05 * errors[0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "y = If(yes) <then_branch = t () => (ty) { ty = Conv(r, v) }, "
            "else_branch = e () => (ey) { q = Neg(r) ey = Conv(q, v) }>",
            "If",
        ),
        (
            "z = Conv(r, v) y = Loop(n, yes, z) <body = l (int64 i, bool ci, float[N,4,8,8] a) => "
            "(bool co, float[N,4,8,8] ao) { co = Identity(ci) k = Conv(r, v) ao = Add(a, k) }>",
            "Loop",
        ),
    ],
)
def test_channels_that_a_subgraph_reads_stay_with_the_reason(body: str, reason: str) -> None:
    model = graphs.model_of(
        f"(float[N,3,8,8] x) => (float[N,4,8,8] y) <{WEIGHTS}, float[4,16,1,1] v, bool yes={{1}}, "
        f"int64 n={{2}}> {{ {HEAD} {body} }}"
    )
    after = PruneChannels(0.5, block=1)(model, Context())
    declined = dict(map(tuple, step(after)["declined"]))
    assert f"operator {reason} is not followed" in declined["conv_0"]


def test_channels_of_a_vector_s_product_stay_with_the_reason() -> None:
    """onnxruntime takes a vector for Gemm's matrix."""
    model = graphs.model_of(
        "(float[] x) => (y) <float[16,16] v, float[16,4] w> "
        "{ a = Gemm<transB=1>(x, v) r = Relu(a) y = MatMul(r, w) }"
    )
    after = PruneChannels(0.5, block=1, verify=False)(model, Context())
    assert "no channel can be removed" in step(after)["note"]
