"""Files and first lines of passes that changed nothing or made the file larger."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import model_of, relu_only

from trimtab.cli import main
from trimtab.core.model import Model
from trimtab.passes import Equalize, QuantizeDynamic, QuantizeWeights
from trimtab.report.pass_outcome import PassOutcome

SMALL = "(float[N,4] x) => (float[N,2] y) <float[4,2] w> { y = MatMul (x, w) }"
LARGE = "(float[N,256] x) => (float[N,256] y) <float[256,256] w> { y = MatMul (x, w) }"
CONV = """(float[N,3,6,6] x) => (float[N,4,4,4] y) <float[4,3,3,3] w> { y = Conv (x, w) }"""


def test_a_smaller_result_is_written_without_a_word() -> None:
    before = model_of(LARGE)
    after = QuantizeDynamic()(before)
    outcome = PassOutcome.of(before, after, shrinks=True)
    assert (outcome.written, outcome.told) == (after, "")


def test_a_larger_result_is_not_written_where_size_is_the_purpose() -> None:
    before = model_of(SMALL)
    after = QuantizeDynamic()(before)
    outcome = PassOutcome.of(before, after, shrinks=True)
    assert outcome.written is before
    assert outcome.told.startswith("the original, as quantize-dynamic makes it larger by ")
    assert "added nodes" in outcome.told
    assert outcome.told.endswith("--keep writes that")


@pytest.mark.parametrize("options", [{"shrinks": True, "keep": True}, {"shrinks": False}])
def test_a_larger_result_is_written_on_demand_or_where_size_is_not_the_purpose(options) -> None:
    before = model_of(SMALL)
    after = QuantizeDynamic()(before)
    outcome = PassOutcome.of(before, after, **options)
    assert outcome.written is after
    assert outcome.told.startswith("larger by ")


def test_nothing_changed_is_said_with_the_reasons_and_their_number() -> None:
    before = model_of(CONV, opset=11)  # a raised opset alone makes no model smaller
    outcome = PassOutcome.of(before, QuantizeDynamic()(model_of(CONV)), shrinks=True)
    assert outcome.written is before
    expected = "nothing changed: an integer convolution is slower than a float one (1x)"
    assert outcome.told == expected


def test_nothing_changed_without_reasons_names_the_pass() -> None:
    before = relu_only()
    outcome = PassOutcome.of(before, Equalize()(before))
    assert outcome.told == "nothing changed: equalize found nothing here that it could improve"


def test_changed_weights_alone_are_a_change() -> None:
    before = model_of(LARGE)
    after = before.clone()
    weight = after.graph.initializers["w"]
    proto = after.to_proto()
    other = onnx.numpy_helper.from_array(np.zeros((256, 256), np.float32), weight.name)
    proto.graph.initializer[0].CopyFrom(other)
    assert PassOutcome.of(before, Model.from_proto(proto, "changed"), shrinks=True).told == ""


def test_the_command_writes_the_smaller_file_and_keep_the_other(tmp_path: Path, capsys) -> None:
    source = model_of(SMALL).save(tmp_path / "float.onnx")
    sizes = []
    for options in ([], ["--keep"]):
        out = tmp_path / "out.onnx"
        assert main(["quantize-dynamic", str(source), "-o", str(out), *options]) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert "larger by" in first
        sizes.append(out.stat().st_size)
    assert sizes[0] == source.stat().st_size < sizes[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["prune", "--sparsity", "0.5"], ["prune-magnitude"], ["cluster-weights", "--clusters", "2"]],
    ids=lambda command: command[0],
)
def test_what_shrinks_the_compressed_file_is_written_though_names_are_added(
    command: list[str], tmp_path: Path
) -> None:
    proto = model_of(SMALL).to_proto()
    proto.graph.node[0].name = ""
    source, out = tmp_path / "float.onnx", tmp_path / "out.onnx"
    onnx.save(proto, source)
    assert main([*command[:1], str(source), "-o", str(out), *command[1:]]) == 0
    (weight,) = onnx.load(out).graph.initializer
    values = np.abs(onnx.numpy_helper.to_array(weight))
    assert (values == 0).sum() == 4 or len(np.unique(values)) == 2


def test_bits_of_weights_are_a_change_of_size() -> None:
    before = model_of(LARGE)
    outcome = PassOutcome.of(before, QuantizeWeights()(before), shrinks=True)
    assert outcome.told == ""


def test_files_do_not_carry_the_shapes_that_inference_finds(tmp_path: Path) -> None:
    source, out = tmp_path / "m.onnx", tmp_path / "o.onnx"
    model_of("(float[N,4] x) => (float[N,4] y) { a = Relu (x) b = Sigmoid (a) y = Tanh (b) }").save(
        source
    )
    assert main(["simplify", str(source), "-o", str(out), "--keep"]) == 0
    assert not onnx.load(out).graph.value_info
