from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from int8_graphs import chain, graph, linear, normal, residual

from trimtab.cli import main
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import Target
from trimtab.runtime_bench.doctor.diagnose import Diagnosis, collect_facts, diagnose, run_finders
from trimtab.runtime_bench.doctor.profile import parse
from trimtab.runtime_bench.doctor.report import document, lines

X64 = Target.named("x64-avx512-vnni")


def ort_quantized(model: Model, tmp_path, **options) -> Model:
    """The model quantized as onnxruntime does by default: S8S8."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = [dict(batch.feeds) for batch in normal(model, rows=4).sized(1)]

        def get_next(self):
            return self.left.pop() if self.left else None

    model.save(tmp_path / "float.onnx")
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", Reader(), **options)
    return Model.load(tmp_path / "int8.onnx")


def examined(model: Model, target: Target = X64) -> Diagnosis:
    facts = collect_facts(model, random_feeds(model), SessionConfig(), target=target)
    return Diagnosis(facts, run_finders(facts))


def causes(diagnosis: Diagnosis) -> list[str]:
    return sorted({f.cause for f in diagnosis.findings if f.kind == "float-island"})


def kinds(diagnosis: Diagnosis) -> set[str]:
    return {f.kind for f in diagnosis.findings}


def test_defaults_of_onnxruntime_on_a_residual_are_s8s8_islands(tmp_path):
    diagnosis = examined(ort_quantized(residual(), tmp_path))
    assert causes(diagnosis) == ["s8s8"]
    finding = next(f for f in diagnosis.findings if f.kind == "float-island")
    assert "uint8" in finding.fix
    assert not diagnosis.healthy


def test_unsigned_activations_leave_no_island(tmp_path):
    from onnxruntime.quantization import QuantType

    model = ort_quantized(residual(), tmp_path, activation_type=QuantType.QUInt8)
    diagnosis = examined(model)
    assert causes(diagnosis) == []
    assert diagnosis.healthy
    assert "Nothing wrong was found" in "\n".join(lines(diagnosis))


def test_symmetric_unsigned_activations_leave_the_relu_float(tmp_path):
    from onnxruntime.quantization import QuantType

    options = {"ActivationSymmetric": True}
    model = ort_quantized(
        residual(), tmp_path, activation_type=QuantType.QUInt8, extra_options=options
    )
    assert causes(examined(model)) == ["symmetric-uint8"]


def test_weights_in_constant_nodes_are_reported(tmp_path):
    model = linear()
    proto = model.to_proto()
    weight = next(t for t in proto.graph.initializer if t.name == "w")
    proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=weight))
    proto.graph.initializer.remove(weight)
    found = examined(ort_quantized(Model.from_proto(proto), tmp_path))
    finding = next(f for f in found.findings if f.kind == "constant-weight")
    assert "trimtab simplify" in finding.fix


SCALES = {
    "s": np.array(0.05, np.float32),
    "z": np.array(128, np.uint8),
    "ws": np.array(0.01, np.float32),
    "wz": np.array(0, np.int8),
    "qw": np.random.default_rng(0).integers(-100, 100, (8, 8, 3, 3)).astype(np.int8),
    "qw2": np.random.default_rng(1).integers(-100, 100, (8, 8, 3, 3)).astype(np.int8),
}
PADS = "<pads = [1, 1, 1, 1]>"


def qdq(middle: str, **weights) -> Model:
    """An int8 convolution, `middle` from d to m, and another int8 convolution."""
    return graph(
        f"""g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {{
          x0 = QuantizeLinear (x, s, z)
          x1 = DequantizeLinear (x0, s, z)
          w1 = DequantizeLinear (qw, ws, wz)
          [first] c = Conv {PADS} (x1, w1)
          c0 = QuantizeLinear (c, s, z)
          d = DequantizeLinear (c0, s, z)
          {middle}
          m0 = QuantizeLinear (m, s, z)
          m1 = DequantizeLinear (m0, s, z)
          w2 = DequantizeLinear (qw2, ws, wz)
          [last] e = Conv {PADS} (m1, w2)
          e0 = QuantizeLinear (e, s, z)
          y = DequantizeLinear (e0, s, z)
        }}""",
        **{**SCALES, **weights},
    )


@pytest.mark.parametrize(
    ("middle", "weights", "cause", "fix"),
    [
        ("[a] m = Selu (d)", {}, "no-kernel:Selu", "trimtab quantize"),
        ("[a] t = Erf (d) [b] m = Neg (t)", {}, "no-kernel:Erf", "trimtab quantize"),
        (
            "[a] t = ReduceMean <axes = [2, 3], keepdims = 1> (d) [b] m = Add (t, d)",
            {},
            "reduce-mean",
            "trimtab simplify",
        ),
        (
            "[a] m = BatchNormalization (d, g, g, g, g)",
            {"g": np.ones(8, np.float32)},
            "batch-norm",
            "trimtab simplify",
        ),
        (
            f"[a] t = Conv {PADS} (d, w1) [b] m = Conv {PADS} (t, w1)",
            {},
            "broken-pair",
            "trimtab quantize",
        ),
        (f"[a] t = Selu (d) [b] m = Conv {PADS} (t, w1)", {}, "broken-pair", "trimtab quantize"),
    ],
)
def test_each_island_has_its_cause_and_its_fix(middle, weights, cause, fix):
    diagnosis = examined(qdq(middle, **weights))
    finding = next(f for f in diagnosis.findings if f.kind == "float-island")
    assert finding.cause == cause
    assert "a" in finding.nodes
    assert fix in finding.fix


def test_a_missing_pair_after_a_convolution_is_reported():
    model = graph(
        f"""g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {{
          x0 = QuantizeLinear (x, s, z)
          x1 = DequantizeLinear (x0, s, z)
          w1 = DequantizeLinear (qw, ws, wz)
          [only] y = Conv {PADS} (x1, w1)
        }}""",
        **{k: v for k, v in SCALES.items() if k != "qw2"},
    )
    (finding,) = [f for f in examined(model).findings if f.kind == "float-island"]
    assert finding.cause == "broken-pair"
    assert "its output has no QuantizeLinear" in finding.why


def test_a_clean_chain_has_no_finding_that_costs():
    diagnosis = examined(qdq("m = Relu (d)", z=np.array(0, np.uint8)))
    assert [f for f in diagnosis.findings if f.severity == "costs"] == []


def test_weights_alone_in_int8_are_noted():
    model = graph(
        f"""g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {{
          w1 = DequantizeLinear (qw, ws, wz)
          [only] y = Conv {PADS} (x, w1)
        }}""",
        **{k: v for k, v in SCALES.items() if k in {"qw", "ws", "wz"}},
    )
    assert "weight-only" in kinds(examined(model))


def test_a_float_model_is_healthy_and_said_to_be_float():
    diagnosis = examined(chain())
    assert diagnosis.healthy
    assert "float-model" in kinds(diagnosis)


def test_channels_that_leave_a_block_empty_are_noted():
    model = graph(
        """g (float[N, 16, 12, 12] x) => (float[N, 20, 12, 12] y) { [odd] y = Conv (x, w) }""",
        w=(20, 16, 1, 1),
    )
    finding = next(f for f in examined(model).findings if f.kind == "channels")
    assert finding.nodes == ("odd",)
    assert "20 channels in blocks of 16" in finding.why


def test_denormal_weights_are_reported():
    weight = np.full((8, 8, 1, 1), 1e-40, np.float32)
    model = graph("g (float[N, 8, 4, 4] x) => (float[N, 8, 4, 4] y) { y = Conv (x, w) }", w=weight)
    finding = next(f for f in examined(model).findings if f.kind == "denormals")
    assert finding.nodes == ("w",)
    assert "64 weights" in finding.why


def test_layout_changes_beyond_two_are_reported():
    model = graph(
        """g (float[1, 16, 12, 12] x) => (float[1, 16, 24, 12] y) {
          a = Conv (x, w1)
          [flip] b = Concat <axis = 2> (a, x)
          c = Conv (b, w2)
          d = ReduceSum <keepdims = 1> (c, axes)
          e = Mul (c, d)
          y = Conv (e, w3)
        }""",
        w1=(16, 16, 1, 1),
        w2=(16, 16, 1, 1),
        w3=(16, 16, 1, 1),
        axes=np.array([1], np.int64),
    )
    finding = next(f for f in examined(model).findings if f.kind == "layout")
    assert "2 are enough" in finding.why


def test_nodes_that_fell_back_are_named():
    facts = collect_facts(chain(), random_feeds(chain()), SessionConfig(), target=X64)
    gpu = replace(facts, fallback=(("odd", "Conv"),), target=Target.named("cuda"))
    finding = next(f for f in run_finders(gpu) if f.kind == "fallback")
    assert (finding.nodes, finding.severity) == (("odd",), "costs")
    assert "CUDAExecutionProvider" in finding.why


def run_events(start: int, name: str, dur: int) -> list[dict]:
    node = {"cat": "Node", "name": f"{name}_kernel_time", "ts": start + 1, "dur": dur}
    args = {"op_name": "Conv", "provider": "CPUExecutionProvider"}
    return [{"cat": "Session", "name": "model_run", "ts": start}, {**node, "args": args}]


def test_a_profile_drops_the_warm_up_and_takes_medians():
    events = [e for i, dur in enumerate([900, 10, 30, 20]) for e in run_events(i * 100, "n", dur)]
    made = parse(events, warm_runs=1)
    assert [(n.name, n.op_type, n.ns) for n in made.nodes] == [("n", "Conv", 20_000)]
    assert made.by_op() == {"Conv": (1, 1.0)}


def test_a_diagnosis_with_profile_is_plain_json(tmp_path):
    model = residual()
    int8 = ort_quantized(model, tmp_path)
    diagnosis = diagnose(int8, random_feeds(int8), target=X64, baseline=model)
    made = document(diagnosis)
    json.dumps(made, allow_nan=False)
    assert 0 < made["int8_time_share"] < 1 or made["share"]["int8_ops"] == 0
    assert "Conv" in made["baseline_operators"]
    assert any("nodes before" in line for line in lines(diagnosis))


def test_the_command_prints_and_writes(tmp_path, capsys):
    chain().save(tmp_path / "m.onnx")
    code = main(
        ["doctor", str(tmp_path / "m.onnx"), "--no-profile", "--json", str(tmp_path / "d.json")]
    )
    assert code == 0
    assert "float-model" in capsys.readouterr().out
    assert json.loads((tmp_path / "d.json").read_text())["healthy"] is True


def test_the_command_refuses_a_baseline_with_other_inputs(tmp_path, capsys):
    chain().save(tmp_path / "m.onnx")
    linear().save(tmp_path / "b.onnx")
    assert main(["doctor", str(tmp_path / "m.onnx"), "--baseline", str(tmp_path / "b.onnx")]) == 2
    assert "b.onnx" in capsys.readouterr().err


def test_operators_without_a_kernel_are_one_cause_with_one_fix_on_lines_that_fit() -> None:
    name = "model_" + "block_" * 60
    found = examined(qdq(f"[{name}a] t = Erf (d) [{name}b] r = Sin (t) [{name}c] m = Cos (r)"))
    (island,) = [f for f in found.findings if f.kind == "float-island"]
    assert island.cause == "no-kernel:Erf"
    assert island.why.startswith("Erf, Sin, Cos have no int8 kernel")
    assert island.fix.count("quantize the float model again") == 1
    assert max(map(len, lines(found))) <= 160
    assert name + "a" in document(found)["findings"][0]["nodes"]
