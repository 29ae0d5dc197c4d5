from __future__ import annotations

import contextlib
import sys

import numpy as np
import onnx
import pytest
from int8_graphs import PATTERNS, graph, transformer_block

from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes.quantization.qdq import writer as qdq
from trimtab.passes.quantization.qdq.prepare import prepare
from trimtab.passes.quantization.qdq.writer import observed_tensors, quantize_graph
from trimtab.passes.quantization.static import QuantizeStatic


def shared_bias():
    """Two layers of one bias, whose int32 form differs for each."""
    return graph(
        """g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {
          a = Conv (x, w1, b)
          r = Relu (a)
          c = Clip (r, low, high)
          y = Conv (c, w2, b)
        }""",
        w1=(4, 4, 1, 1),
        w2=(4, 4, 1, 1),
        b=(4,),
        low=np.float32(0),
        high=np.float32(6),
    )


def quantized(model: Model) -> Model:
    clone = model.clone()
    prepare(clone)
    scheme, _ = QuantizeStatic()._scheme(clone, Target.named("x64-avx512-vnni"))
    ranges = {name: (-1.0, float(i + 1)) for i, name in enumerate(observed_tensors(clone, scheme))}
    return Model(quantize_graph(clone, scheme, ranges))


@pytest.mark.parametrize("make", [*PATTERNS.values(), transformer_block, shared_bias])
def test_indexes_do_not_change_the_result(make, monkeypatch):
    model = make()
    fast = quantized(model)
    monkeypatch.setattr(qdq, "indexed_lookups", contextlib.nullcontext)
    slow = quantized(model)
    assert [(n.name, [v.name for v in n.inputs if v]) for n in fast.graph] == [
        (n.name, [v.name for v in n.inputs if v]) for n in slow.graph
    ]
    weights = [m.graph.initializers for m in (fast, slow)]
    assert sorted(weights[0]) == sorted(weights[1])
    for name, value in weights[0].items():
        np.testing.assert_array_equal(
            value.const_value.numpy(), weights[1][name].const_value.numpy()
        )


def test_the_quantizer_is_restored_afterwards():
    from onnxruntime.quantization import base_quantizer, qdq_quantizer

    before = (base_quantizer.ONNXModel, qdq_quantizer.find_by_name)
    quantized(shared_bias())
    assert (base_quantizer.ONNXModel, qdq_quantizer.find_by_name) == before


def long_chain(nodes: int) -> Model:
    weight = np.eye(4, dtype=np.float32)
    parts, names = [], ["x"]
    for i in range(nodes // 2):
        parts += [
            onnx.helper.make_node("MatMul", [names[-1], f"w{i}"], [f"a{i}"]),
            onnx.helper.make_node("Relu", [f"a{i}"], [f"r{i}"]),
        ]
        names.append(f"r{i}")
    info = [onnx.helper.make_tensor_value_info(n, 1, ["N", 4]) for n in ("x", names[-1])]
    weights = [onnx.numpy_helper.from_array(weight, f"w{i}") for i in range(nodes // 2)]
    body = onnx.helper.make_graph(parts, "chain", info[:1], info[1:], weights)
    opset = [onnx.helper.make_opsetid("", 17)]
    return Model.from_proto(onnx.helper.make_model(body, opset_imports=opset, ir_version=8))


def lines_run(nodes: int) -> int:
    """Python lines that quantizing runs: no noise, and no work in C, which the benchmark times."""
    model, count, before = long_chain(nodes), 0, sys.gettrace()

    def trace(_frame: object, _event: str, _argument: object) -> object:
        nonlocal count
        count += 1
        return trace

    sys.settrace(trace)
    try:
        quantized(model)
    finally:
        sys.settrace(before)
    return count


def test_work_is_linear_in_the_nodes():
    lines_run(20)
    assert lines_run(600) < 2.1 * lines_run(300)
