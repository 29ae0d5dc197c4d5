from __future__ import annotations

import importlib.util
import json

import numpy as np
import onnx.parser
import openvino_here
import pytest
from int8_graphs import chain, normal, residual
from shared_data import shared

from trimtab.cli import main
from trimtab.core.context import Context
from trimtab.core.errors import InputError, OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.given_feeds import usual_feeding
from trimtab.core.target import PRESETS, Target
from trimtab.passes.quantization.static import QuantizeStatic
from trimtab.runtime_bench.devices.web_support import ask_anywhere, taken_nodes
from trimtab.runtime_bench.support import check, table
from trimtab.runtime_bench.support.check import Support, support
from trimtab.runtime_bench.support.report import document, lines
from trimtab.runtime_bench.support.table import support_table, table_names


def parsed(text: str) -> Model:
    return Model.from_proto(onnx.parser.parse_model(text), "made")


def model(body: str, inputs: str = "float[1,4,8,8] x", output: str = "float[1,4,8,8] y") -> Model:
    head = '<ir_version: 8, opset_import: ["": 17]>'
    return parsed(f"{head} made ({inputs}) => ({output}) {{ {body} }}")


def looked(made: Model, target: str) -> Support:
    return support(made, random_feeds(made), target, asked=None)


def refused(found: Support) -> dict[str, str]:
    return {node.op: node.why for node in found.nodes if node.state == "falls back"}


def quantized(made: Model, target: str) -> Model:
    ctx = Context(target=Target.named(target), data=normal(made, rows=4))
    return QuantizeStatic()(made, ctx)


@pytest.mark.parametrize("name", table_names())
def test_each_table_is_read_has_sources_and_the_int8_form_of_a_target(name: str) -> None:
    read = support_table(name)
    assert len(read.by_operator) > 5
    assert all(address.startswith("https://") for address in read.sources.values())
    assert PRESETS[name].provider == read.provider
    assert read.version
    assert read.int8
    assert looked(residual(), name).nodes


@pytest.mark.parametrize(
    ("body", "target", "why"),
    [
        ("y = Det (x)", "qnn-htp", "is not in its list of operators"),
        ("m = Relu (x) y = Relu (m)", "xnnpack", "is not in its list of operators"),
        ("y = MaxPool <kernel_shape=[1,1], ceil_mode=1> (x)", "xnnpack", "ceil_mode is 1"),
        ("s = Shape (x) y = Reshape (x, s)", "webgpu-web", ""),
        ('y = DepthToSpace <blocksize=2, mode="CRD"> (x)', "nnapi", "mode is CRD; taken with DCR"),
        ("y = Softmax <axis=1> (x)", "xnnpack", "axis is 1 of 4; taken along the last"),
        ("y = BatchNormalization (x, a, a, a, a)", "webgpu-web", ""),
    ],
)
def test_a_node_that_falls_back_is_told_with_the_reason(body: str, target: str, why: str) -> None:
    weights = "float[4] a" if "a, a" in body else ""
    made = model(body, ", ".join(filter(None, ["float[1,4,8,8] x", weights])), "float y")
    found = refused(looked(made, target))
    assert (why in next(iter(found.values()), "")) if why else not found


def test_types_and_ranks_are_those_that_the_node_has() -> None:
    wide = model("y = Conv (x, w)", "float[1,2,4,4,4] x, float[2,2,1,1,1] w", "float y")
    assert "5 dimensions; taken with 3 or 4" in refused(looked(wide, "webnn"))["Conv"]
    ints = model("y = Add (x, x)", "int64[4] x", "int64[4] y")
    assert "input 0 is int64" in refused(looked(ints, "coreml"))["Add"]


def test_xnnpack_takes_int8_with_int8_and_refuses_uint8_with_int8() -> None:
    """Weights as onnxruntime wants them on x64 are refused by XNNPACK."""
    good, bad = (looked(quantized(chain(), t), "xnnpack") for t in ("xnnpack", "x64-avx512-vnni"))
    assert "Conv" not in refused(good)
    assert "mixes uint8 and int8" in refused(bad)["Conv"]
    assert good.macs_share is not None
    assert bad.macs_share is not None
    assert good.macs_share > bad.macs_share


def test_parts_are_the_pieces_that_the_provider_gets() -> None:
    made = model("a = Relu (x) b = Hardmax (a) c = Neg (a) d = Add (b, c) y = Relu (d)")
    assert looked(made, "webnn").parts == 2
    assert looked(model("y = Relu (x)"), "webnn").parts == 1


def test_free_dimensions_are_told_where_the_provider_refuses_them() -> None:
    made = model("y = Relu (x)", "float[N,4,8,8] x", "float[N,4,8,8] y")
    assert "free dimensions (x: N)" in "\n".join(lines(looked(made, "qnn-htp")))
    assert document(looked(made, "nnapi"))["refuses_free"]
    assert "free dimensions" not in "\n".join(lines(looked(made, "coreml")))


def test_powers_of_two_are_the_scales_for_vitis() -> None:
    made = quantized(chain(), "vitis")
    constants = {name: v.const_value for name, v in made.graph.initializers.items()}
    nodes = [n for n in made.graph if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    scales = [constants[n.inputs[1].name].numpy() for n in nodes]
    kept = [s for s, n in zip(scales, nodes, strict=True) if n.op_type == "QuantizeLinear"]
    assert kept
    assert all((np.exp2(np.round(np.log2(scale))) == scale).all() for scale in scales)


def test_a_table_that_is_not_valid_is_one_message(tmp_path, monkeypatch) -> None:
    bad = "title: t\nprovider: P\nversion: v\nread: d\nsources: {a: https://a}\noperators:\n"
    (tmp_path / "bad.yaml").write_text(bad + "  - {names: [Add], source: b}\n")
    monkeypatch.setattr(table, "_FOLDER", tmp_path)
    support_table.cache_clear()
    with pytest.raises(InputError, match=r"'b'.*no address under sources"):
        support_table("bad")
    with pytest.raises(OptionError, match="unknown target with a table"):
        support_table("worse")


def test_the_command_tells_and_writes_what_runs_there(tmp_path, capsys) -> None:
    residual().save(tmp_path / "float.onnx")
    argv = ["doctor", str(tmp_path / "float.onnx"), "--target", "xnnpack"]
    assert main([*argv, "--json", str(tmp_path / "found.json")]) == 0
    assert "nodes run there" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["target"] == "xnnpack"
    assert {node["state"] for node in found["nodes"]} == {"runs there", "falls back"}


def test_the_answer_of_an_installed_provider_counts_before_the_table() -> None:
    made = model("a = Relu (x) y = Neg (a)")
    names = [node.name for node in looked(made, "webnn").nodes]
    answer = check.Answer("a-package 1.0", dict(zip(names, (True, False), strict=True)))
    found = support(made, random_feeds(made), "webnn", asked=lambda *_: (answer, ""))
    assert [node.state for node in found.nodes] == ["runs there", "falls back"]
    assert found.differ == (names[1],)
    assert "a-package 1.0 was asked here" in lines(found)[0]


@pytest.mark.slow
def test_the_table_of_webgpu_holds_against_the_answer_of_a_browser() -> None:
    """On a graph with operators of each kind, float and int8, and on a real file."""
    for made in (residual(), quantized(chain(), "webgpu-web"), Model.load(_real()[3])):
        found = support(made, usual_feeding(made).feeds, "webgpu-web", asked=ask_anywhere)
        if found.answer is None:
            pytest.skip(f"needs Chromium and onnxruntime-web: {found.not_asked}")
        assert not found.differ, (made.name, found.differ)


def test_the_log_of_a_browser_says_where_nodes_are() -> None:
    log = "V:onnxruntime:, session_state.cc:1385 VerifyEachNodeIsAssignedToAnEp]"
    some = [
        f"{log} Node placements",
        f"{log}  Node(s) placed on [WebGpuExecutionProvider]. Number of nodes: 1",
        f"{log}   Conv (first (a))",
        f"{log}  Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2",
        f"{log}   QuantizeLinear (second)",
        f"{log}   MemcpyToHost (added)",
    ]
    assert taken_nodes(some, ["first (a)", "second"]) == {"first (a)": True, "second": False}
    every = [f"{log}  All nodes placed on [WebGpuExecutionProvider]. Number of nodes: 2"]
    assert taken_nodes(every, ["a", "b"]) == {"a": True, "b": True}


PACKAGES = {"qnn-htp": "onnxruntime_qnn", "openvino": "onnxruntime_ep_openvino"}


@pytest.mark.parametrize("form", ["float", "int8"])
@pytest.mark.parametrize("name", PACKAGES)
def test_the_table_holds_against_the_answer_of_the_package(name: str, form: str) -> None:
    """All nodes but one of a hundred, on a made graph and on real files."""
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed")
    if name == "openvino" and not openvino_here.RUNS:
        pytest.skip(openvino_here.NEEDED)
    made = [residual(), chain()]
    made += [Model.load(p) for p in _real() if form == "float"]
    made = [quantized(m, name) for m in made] if form == "int8" else made
    for each in made:
        found = support(each, usual_feeding(each).feeds, name)
        assert found.answer is not None, found.not_asked
        assert len(found.differ) <= max(1, len(found.nodes) / 100), (each.name, found.differ)


def _real() -> list:
    names = ("yolox_nano", "ppocr_det", "basic_pitch", "dtln_1", "melspectrogram")
    return [shared("data/real") / f"{name}.onnx" for name in names]
