"""Answers that a model keeps after passes that lose something by design."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import model_of

from trimtab.cli import main
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import PassError
from trimtab.core.lineage import Step
from trimtab.core.model import Model
from trimtab.report.lines import pass_lines
from trimtab.report.outputs_kept import OutputsKept, outputs_kept
from trimtab.report.pass_outcome import PassOutcome

PRODUCT = "(float[N,64] x) => (float[N,32] y) <float[64,32] w> { y = MatMul (x, w) }"
WRONG = "(float[N,64] x) => (float[N,32] y) <float[64,32] w> { m = MatMul (x, w)  y = Neg (m) }"


def test_a_model_that_answers_the_same_keeps_everything() -> None:
    kept = outputs_kept(model_of(PRODUCT), model_of(PRODUCT), Context())
    assert isinstance(kept, OutputsKept)
    assert (kept.fidelity, kept.error, kept.ruined) == (1.0, 0.0, False)
    assert "8 random inputs" in str(kept)
    assert "--data" in str(kept)


def test_a_model_that_answers_otherwise_is_ruined_on_the_items_of_the_data() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    kept = outputs_kept(model_of(PRODUCT), model_of(WRONG), Context(data=Dataset.of({"x": rows})))
    assert isinstance(kept, OutputsKept)
    assert kept.ruined
    assert kept.error == pytest.approx(4)
    assert "3 items" in str(kept)


SURE = """(float[N,64] x) => (float[N,8] y) <float[64,8] w, float[8] b = {9, 0, 0, 0, 0, 0, 0, 0}>
    { m = MatMul (x, w)  a = Add (m, b)  y = Softmax (a) }"""


@pytest.mark.parametrize(("changed", "ruined"), [("Identity", False), ("Neg", True)])
def test_decisions_that_noise_cannot_change_do_not_hide_ruin(changed: str, ruined: bool) -> None:
    """On noise the first class is sure, as the blank of a reader of text is."""
    w = (np.random.default_rng(0).normal(size=(64, 8)) / 8).astype(np.float32)
    other = SURE.replace("a = Add (m, b)", f"n = {changed} (m)  a = Add (n, b)")
    kept = outputs_kept(model_of(SURE, w=w), model_of(other, w=w), Context())
    assert isinstance(kept, OutputsKept)
    assert kept.fidelity == 1.0
    assert kept.error < 0.01
    assert kept.ruined == ruined


def test_a_result_that_does_not_run_where_the_original_does_is_an_error() -> None:
    broken = model_of(
        """(float[N,64] x) => (float[N,32] y) <int64[2] shape = {-1, 7}, float[7,32] w>
        { r = Reshape (x, shape)  y = MatMul (r, w) }"""
    )
    with pytest.raises(PassError, match="does not run on"):
        outputs_kept(model_of(PRODUCT), broken, Context())


def test_an_original_that_runs_on_nothing_is_not_judged() -> None:
    odd = model_of(
        """(float[N,64] x) => (float[M,7] y) <int64[3] shape = {-1, 4096, 4099}>
        { r = Reshape (x, shape)  y = ReduceMax <keepdims=0, axes=[0]> (r) }"""
    )
    assert "were not compared" in str(outputs_kept(odd, odd, Context()))


def test_the_first_line_says_that_most_of_the_answers_are_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(tmp_path / "m.onnx")
    model_of(PRODUCT).save(source)
    wrote = ["-o", str(tmp_path / "o.onnx"), "--no-measure", "--keep"]
    assert main(["prune", source, "--sparsity", "0.9", *wrote]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert "answers otherwise than the original (fidelity" in first
    assert "on 8 random inputs): retrain it" in first
    assert "squared relative error" in second
    assert main(["quantize-dynamic", source, "-o", str(tmp_path / "q.onnx"), "--keep"]) == 0
    assert "answers otherwise" not in capsys.readouterr().out


WIDE = """(float[N,64] x) => (float[N,8] y)
    <float[64,128] w, float[128] b, float[128,8] v, float[8] c> {
    h = Gemm (x, w, b)  r = Relu (h)  y = Gemm (r, v, c) }"""


@pytest.mark.parametrize(
    ("rows", "said"), [(40, "8 items held out"), (24, "6 items held out"), (12, "8 items,")]
)
def test_pruning_is_judged_on_rows_that_it_was_not_fitted_to(
    rows: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).normal(size=(rows, 64)).astype(np.float32)
    held = {40: [2, 7, 12, 17, 22, 27, 32, 37], 24: [2, 6, 10, 14, 18, 22]}.get(rows, [])
    source = model_of(WIDE).save(tmp_path / "m.onnx")
    found = {}
    for name, part in {"all": x, "fitted": np.delete(x, held, 0)}.items():
        np.savez(tmp_path / f"{name}.npz", x=part)
        options = ["--data", str(tmp_path / f"{name}.npz"), "-o", str(tmp_path / f"{name}.onnx")]
        assert main(["prune", str(source), "--channels", "60%", "--no-measure", *options]) == 0
        found[name] = capsys.readouterr().out.splitlines()[1]
    assert said in found["all"]
    if held:
        pruned = Model.load(tmp_path / "all.onnx")
        other = Context(data=Dataset.of({"x": x[held]}))
        kept = outputs_kept(model_of(WIDE), pruned, other)
        assert isinstance(kept, OutputsKept)
        assert f"squared relative error {kept.error:.3g} " in found["all"]
        assert kept.error > 0.1  # of the rows that it was fitted to next to nothing is lost
        within = outputs_kept(model_of(WIDE), pruned, Context(data=Dataset.of({"x": x[:2]})))
        assert isinstance(within, OutputsKept)
        assert within.error < kept.error


@pytest.mark.parametrize(
    "command",
    [
        "prune --channels 60% --no-measure",
        "prune --sparsity 0.5 --importance activation --no-measure",
        "prune-gradually --sparsity 0.5 --rounds 1",
        "quantize-static",
        "quantize-weights --method gptq",
    ],
)
def test_what_judges_a_pass_is_no_row_that_it_saw(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = command.split()
    if name == "prune-gradually":
        pytest.importorskip("torch")
        options += ["--finetune", '{"steps": 1}']
    x = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    source, out = str(model_of(WIDE).save(tmp_path / "m.onnx")), str(tmp_path / "o.onnx")
    notes = ["--json", str(tmp_path / "notes.json"), "--data", str(tmp_path / "d.npz"), "--keep"]
    assert main([name, source, "-o", out, *notes, *options]) == 0
    assert "on 8 items held out" in capsys.readouterr().out
    [step] = json.loads((tmp_path / "notes.json").read_text())["steps"]
    seen = step["params"]["data"]
    assert (seen["items"], seen["part"]) == (32, "all but those held out")


def test_the_first_line_tells_a_loss_of_more_than_a_fiftieth(tmp_path: Path) -> None:
    model = model_of(PRODUCT)
    after = replace(model, lineage=(Step("quantize-weights", {}, model.digest, {}),))
    path = after.save(tmp_path / "q.onnx")

    def first(fidelity: float) -> str:
        kept = OutputsKept(fidelity, 0.01, "8 items, rows of calib.npz")
        return pass_lines(PassOutcome(model, after, after, kept=kept), path)[0]

    told = "and keeps 0.802 of the original's answers on 8 items: keep more of it float"
    assert first(0.802).endswith(told)
    assert "keeps" not in first(0.98)
