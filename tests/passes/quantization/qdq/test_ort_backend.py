"""onnxruntime's own quantizer as a backend, and as the reference of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from int8_graphs import chain, graph, normal, residual
from shared_data import shared

from trimtab.cli import main
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def answers(model: Model, data: Dataset) -> np.ndarray[Any, Any]:
    session = build_session(model, SessionConfig())
    return np.concatenate([next(iter(run(session, b.feeds).values())) for b in data])


def error(model: Model, after: Model, data: Dataset) -> float:
    expected, got = answers(model, data), answers(after, data)
    return float(np.sqrt(np.square(got - expected).mean() / np.square(expected).mean()))


@pytest.mark.parametrize("make", [chain, residual])
@pytest.mark.parametrize("ranges", ["minmax", "percentile", "entropy", "mse"])
def test_both_backends_give_the_same_answers(make, ranges):
    model = make()
    data = normal(model)
    for backend in ("trimtab", "onnxruntime"):
        after = QuantizeStatic(data=data, ranges=ranges, backend=backend)(model, VNNI)
        assert int8_share(after).int8_share == 1.0
        assert after.lineage[-1].notes["int8_share"] == 1.0
        assert error(model, after, data) < 0.06
    assert after.lineage[-1].params["backend"] == "onnxruntime"


@pytest.mark.parametrize("target", ["arm64", "x64-avx2", "tensorrt"])
def test_the_target_decides_types_for_both_backends(target):
    model = chain()
    ctx = Context(target=Target.named(target))
    made = [
        QuantizeStatic(data=normal(model), backend=backend)(model, ctx)
        for backend in ("trimtab", "onnxruntime")
    ]
    types = [
        {
            value.const_value.dtype.name
            for node in after.graph
            if node.op_type in {"QuantizeLinear", "DequantizeLinear"}
            and (value := node.inputs[2]).const_value is not None
        }
        for after in made
    ]
    assert types[0] == types[1]


@pytest.mark.parametrize(
    "given", [{"max_drop": 0.1}, {"wide": ("x",)}, {"statistics": "s.npz"}], ids=str
)
def test_what_onnxruntime_does_not_offer_is_refused(given):
    with pytest.raises(OptionError, match=next(iter(given))):
        QuantizeStatic(backend="onnxruntime", **given)


def test_the_command_takes_the_backend(tmp_path, capsys):
    model = chain()
    np.savez(tmp_path / "d.npz", **next(iter(normal(model))).feeds)
    source, out = str(model.save(tmp_path / "f.onnx")), str(tmp_path / "o.onnx")
    options = ["--data", str(tmp_path / "d.npz"), "--backend", "onnxruntime"]
    assert main(["quantize-static", source, "-o", out, *options]) == 0
    assert int8_share(Model.load(out)).int8_share == 1.0


#: Nodes as ONNX's backend tests have them: attributes, and shapes of x and of weights.
NODES = {
    "Conv <strides = [2, 2], pads = [1, 0, 1, 0]> (x, w)": ((4, 7, 5), (6, 4, 3, 3)),
    "Conv <dilations = [2, 2]> (x, w)": ((4, 7, 7), (6, 4, 3, 3)),
    'Conv <auto_pad = "SAME_LOWER"> (x, w)': ((4, 7, 5), (6, 4, 3, 3)),
    "Conv <group = 2> (x, w)": ((4, 5, 5), (6, 2, 3, 3)),
    "Conv <pads = [1, 1]> (x, w)": ((4, 9), (6, 4, 3)),
    "Conv (x, w)": ((4, 4, 4, 4), (6, 4, 2, 2, 2)),
    "Gemm (x, w)": ((5,), (5, 3)),
    "Gemm <transB = 1, alpha = 0.5> (x, w)": ((5,), (3, 5)),
    "MatMul (x, w)": ((2, 3, 5), (5, 4)),
    "MatMul (w, x)": ((3, 5), (4, 3)),
    "Add (x, w)": ((3, 4), (4,)),
    "Mul (x, w)": ((3, 4), (3, 1)),
    "Sigmoid (x)": ((3, 4), None),
    "LeakyRelu <alpha = 0.1> (x)": ((3, 4), None),
    "Softmax <axis = 1> (x)": ((3, 4), None),
    "GlobalAveragePool (x)": ((3, 4, 4), None),
    "Concat <axis = 1> (x, x)": ((3, 4), None),
}


@pytest.mark.parametrize("node", NODES)
def test_single_nodes_are_as_exact_as_onnxruntimes(node):
    shape, weight = NODES[node]
    rows = np.random.default_rng(0).standard_normal((16, *shape)).astype(np.float32)
    free = ", ".join("ABCDE"[: len(shape) + 1])
    sizes = ", ".join(map(str, shape))
    weights = {} if weight is None else {"w": weight}
    model = graph(f"g (float[N, {sizes}] x) => (float[{free}] y) {{ y = {node} }}", **weights)
    data = Dataset.of_arrays({"x": rows})
    errors = []
    for backend in ("trimtab", "onnxruntime"):
        step = QuantizeStatic(data=data, ranges="minmax", backend=backend, all_int8=True)
        errors.append(error(model, step(model, VNNI), data))
    assert errors[0] < max(1.2 * errors[1], 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_networks_have_the_same_kernels_and_answers_from_both_backends(name):
    model = Model.load(shared(f"data/{name}.onnx"))
    data = normal(model, rows=16)
    ours, theirs = (
        QuantizeStatic(data=data, ranges="minmax", backend=backend)(model, VNNI)
        for backend in ("trimtab", "onnxruntime")
    )
    kernels = [
        {op: n for op, n in int8_share(after).ops.items() if op.startswith("QLinear")}
        for after in (ours, theirs)
    ]
    assert kernels[0] == kernels[1]
    assert error(model, ours, data) < 1.1 * error(model, theirs, data) + 0.01


@pytest.mark.slow
def test_a_real_file_is_as_good_from_both_backends():
    model = Model.load(shared("data/real/keypoint.onnx"))
    rows = np.random.default_rng(0).uniform(-1, 1, (64, 42)).astype(np.float32)
    data = Dataset.of_arrays({model.inputs[0].name: rows})
    kept = []
    for backend in ("trimtab", "onnxruntime"):
        after = QuantizeStatic(data=data, backend=backend)(model, VNNI)
        onnx.checker.check_model(after.to_proto(), full_check=True)
        kept.append(np.mean(answers(after, data) == answers(model, data)))
    assert kept[0] >= kept[1] - 0.05
