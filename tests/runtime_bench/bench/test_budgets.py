from __future__ import annotations

import pytest

from trimtab.core.errors import InputError, OptionError
from trimtab.runtime_bench.bench.budgets import Budget, count_statistical
from trimtab.runtime_bench.gate.budget_file import load_gates, parse_gates

WHOLE = """\
model: out/model.onnx
baseline: float.onnx
data: eval.npz
metric: top1
threads: 1
shape: {input: 1x3x32x32}
budgets:
  p50: 4ms
  p95: 5ms
  speedup: 1.5
  no_slower_than: previous.onnx
  tolerance: 2%
  size: 4MB
  rss: 200MB
  load: 300ms
  drop: 0.01
  int8_share: 90%
"""


def test_a_whole_gate_is_read():
    (gate,) = parse_gates(WHOLE)
    by_name = {b.name: b for b in gate.budgets}
    assert by_name["p95"].limit == 5e6
    assert by_name["p95"].quantile == 0.95
    assert by_name["p95"].line == 9
    assert by_name["size"].limit == 4_000_000
    assert by_name["speedup"].against == "float.onnx"
    assert by_name["no_slower_than"].against == "previous.onnx"
    assert by_name["no_slower_than"].tolerance == 0.02
    assert by_name["int8_share"].limit == 0.9
    assert (gate.threads, dict(gate.shapes)) == (1, {"input": (1, 3, 32, 32)})


def test_lists_and_mappings_are_read_where_one_value_is_not_enough():
    text = """
model: m.onnx
baseline: f.onnx
data: pictures
preprocess: {resize: crop:224, mean: [0.4, 0.5, 0.6]}
on: [pi5, orin, pi5]
shape: {x: [1, 3, 224, 224]}
budgets:
  drop: {top1: 1%, top5: 0.02}
"""
    (gate,) = parse_gates(text)
    assert gate.data == "pictures?resize=crop:224&mean=0.4,0.5,0.6"
    assert gate.on == ("pi5", "orin")
    assert dict(gate.shapes) == {"x": (1, 3, 224, 224)}
    assert [(b.metric, b.limit) for b in gate.budgets] == [("top1", 0.01), ("top5", 0.02)]


def test_several_documents_are_several_gates():
    two = "model: a.onnx\nbudgets: {size: 1MB}\n---\nmodel: b.onnx\nbudgets: {size: 2MB}\n"
    assert [g.model for g in parse_gates(two)] == ["a.onnx", "b.onnx"]


def test_keys_beside_a_list_of_gates_are_defaults_of_all():
    text = """
threads: 2
gates:
  - {model: a, budgets: {size: 1MB}}
  - {model: b, threads: 1, budgets: {p50: 1ms}}
"""
    assert [(g.model, g.threads) for g in parse_gates(text)] == [("a", 2), ("b", 1)]


def test_merge_keys_of_yaml_work():
    text = "gates:\n- &a {model: a, budgets: {size: 1MB}}\n- {<<: *a, model: b}"
    assert [g.model for g in parse_gates(text)] == ["a", "b"]


def test_a_provider_budget_sets_the_provider():
    (gate,) = parse_gates("model: a\nbudgets: {provider: CUDAExecutionProvider}")
    assert gate.provider == "CUDAExecutionProvider"


def test_statistical_budgets_are_counted_over_all_gates():
    text = """
model: a
baseline: b
budgets: {p95: 5ms, speedup: 2, size: 1MB}
---
model: c
budgets: {load: 1s}
"""
    assert count_statistical(parse_gates(text)) == 3


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", None, "no gate"),
        ("# only a comment\n---\n", None, "no gate"),
        ("gates: []\n", 1, "empty"),
        ("budgets: {p95: 5ms}\n", 1, "no `model:`"),
        ("model: a\n", 1, "no `budgets:`"),
        ("model: a\nbudgets: {}\n", 2, "empty"),
        ("model: a\nbudget: {p95: 5ms}\n", 2, "Did you mean 'budgets'"),
        ("model: a\nbudgets:\n  p95: 5ms\n  sped_up: 2\n", 4, "Did you mean 'speedup'"),
        ("model: a\nbudgets:\n  p95: 5\n", 3, "no unit"),
        ("model: a\nbudgets:\n  p95: fast\n", 3, "'fast' is not a duration"),
        ("model: a\nbudgets:\n  p0: 5ms\n", 3, "unknown budget 'p0'"),
        ("model: a\nbudgets:\n  size: -4MB\n", 3, "not a size"),
        ("model: a\nbudgets:\n  int8_share: 90\n", 3, "between 0 and 1"),
        ("model: a\nbudgets:\n  size: [1MB, 2MB]\n", 3, "more than one value"),
        ("model: a\nbudgets:\n  size: 1MB\n  size: 2MB\n", 4, "twice"),
        ("model: a\nbudgets:\n  p50: 5ms\n  p95: 4ms\n", 4, "can never bind"),
        ("model: a\nbudgets:\n  speedup: 2\n", 3, "needs `baseline:`"),
        ("model: a\nbaseline: a\nbudgets:\n  speedup: 2\n", 4, "faster than itself"),
        ("model: a\nbaseline: b\nbudgets:\n  drop: 0.01\n", 4, "needs `data:`"),
        ("model: a\nbudgets:\n  size: 1MB\n  tolerance: 0.02\n", 4, "belongs to"),
        ("model: a\nthreads: 0\nbudgets: {size: 1MB}\n", 2, "not above 0"),
        ("model: a\nresolution: 0\nbudgets: {size: 1MB}\n", 2, "not above 0"),
        ("model: a\nprovider: 3\nbudgets: {size: 1MB}\n", 2, "is not a provider"),
        ("model: a\non: [3]\nbudgets: {size: 1MB}\n", 2, "does not name a device"),
        ("model: a\npreprocess: {resize: 8}\nbudgets: {size: 1MB}\n", 2, "beside `data:`"),
        ("model: a\nshape: 3\nbudgets: {size: 1MB}\n", 2, "is not a valid shape"),
        ("model: 3\nbudgets: {size: 1MB}\n", 1, "is not text"),
        ("provider: CPUExecutionProvider\nmodel: a\nbudgets: {provider: X}\n", 3, "runs on"),
        ("model: a\nbudgets: {p95: 5ms\n", 3, "is not valid YAML"),
        ("- just\n- text\n", 1, "is not a gate"),
        ("model: a\nbudgets: &b {size: *b}\n", 2, ""),
    ],
)
def test_a_refusal_names_the_line_and_what_to_do(text, line, says):
    with pytest.raises(InputError) as caught:
        parse_gates(text, "b.yaml")
    assert says in str(caught.value)
    place = "b.yaml" if line is None else f"b.yaml, line {line}"
    assert str(caught.value).startswith(place + ":")


def test_a_missing_model_is_named_with_its_line(tmp_path):
    path = tmp_path / "budgets.yaml"
    path.write_text("\n\nmodel: gone.onnx\nbudgets: {size: 1MB}\n")
    with pytest.raises(InputError, match=r"line 3: no such file: .*gone.onnx"):
        load_gates(path)


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "m.onnx").touch()
    (tmp_path / "budgets.yaml").write_text("model: m.onnx\nbudgets: {no_slower_than: m.onnx}\n")
    (gate,) = load_gates(tmp_path / "budgets.yaml")
    assert gate.model == str(tmp_path / "m.onnx") == gate.budgets[0].against


def test_a_missing_budgets_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_gates(tmp_path / "none.yaml")


def test_a_percentile_may_look_at_quiet_runs_only():
    budget = Budget.of("p99_quiet", "5ms")
    assert (budget.quantile, budget.quiet) == (0.99, True)


def test_an_unknown_budget_is_an_option_error_outside_of_files():
    with pytest.raises(OptionError, match="Did you mean 'p95'"):
        Budget.of("p95th", "5ms")


def test_a_gate_names_its_engines_in_short() -> None:
    text = """
model: m.onnx
baseline: f.onnx
provider: openvino:device_type=GPU
baseline_provider: cpu
budgets: {speedup: 1.1, provider: openvino}
"""
    (gate,) = parse_gates(text)
    assert gate.provider == "OpenVINOExecutionProvider"
    assert str(gate.engine) == gate.runs_on == "openvino:device_type=GPU"
    assert str(gate.baseline_engine) == "cpu"
    assert gate.of_kind("provider")[0].against == gate.provider
