"""Bad input to the command line: one message with what, where and what to do; exit code 2.

Nothing is left behind: no half-written file, no scratch folder.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from cnn_data import arrays

from trimtab.cli import main
from trimtab.core.model import Model


class Trap:
    """A pickle that would run code."""

    def __reduce__(self):
        return (Path.touch, (Path("was_run"),))


def save(path: Path, **arrays_: np.ndarray) -> str:
    np.savez(path, **arrays_)
    return str(path)


def wrong_name(f: Path) -> str:
    a = arrays()
    return save(f / "bad.npz", picture=a["x"], labels=a["labels"])


def wrong_shape(f: Path) -> str:
    a = arrays()
    return save(f / "bad.npz", x=a["x"][..., :-1], labels=a["labels"])


def wrong_dtype(f: Path) -> str:
    a = arrays()
    return save(f / "bad.npz", x=a["x"].astype(np.float64), labels=a["labels"])


def with_nan(f: Path) -> str:
    a = arrays()
    a["x"][17] = np.nan
    return save(f / "bad.npz", **a)


def no_rows(f: Path) -> str:
    return save(f / "bad.npz", **{k: v[:0] for k, v in arrays().items()})


def labels_out_of_range(f: Path) -> str:
    a = arrays()
    return save(f / "bad.npz", x=a["x"], labels=a["labels"] + 100)


def float_labels(f: Path) -> str:
    a = arrays()
    return save(f / "bad.npz", x=a["x"], labels=a["labels"].astype(np.float32))


def truncated_onnx(f: Path) -> str:
    (f / "cut.onnx").write_bytes((f / "model.onnx").read_bytes()[:-50])
    return str(f / "cut.onnx")


def text_as_onnx(f: Path) -> str:
    (f / "text.onnx").write_text("hello")
    return str(f / "text.onnx")


def external_outside(f: Path) -> str:
    (f / "in").mkdir()
    proto = onnx.load(f / "model.onnx")
    onnx.save_model(
        proto, f / "ext.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    moved = onnx.load(f / "ext.onnx", load_external_data=False)
    for tensor in moved.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../w.bin"
    (f / "in" / "m.onnx").write_bytes(moved.SerializeToString())
    return str(f / "in" / "m.onnx")


def external_missing(f: Path) -> str:
    external_outside(f)
    (f / "w.bin").unlink()
    return str(f / "ext.onnx")


def pickle_with_code(f: Path) -> str:
    (f / "weights.pt").write_bytes(pickle.dumps(Trap()))
    return str(f / "weights.pt")


def recipe(f: Path, text: str) -> str:
    (f / "recipe.yaml").write_text(text)
    return str(f / "recipe.yaml")


def file_in_the_way(f: Path) -> str:
    (f / "blocked").write_text("a file")
    return str(f / "blocked" / "sub")


Arguments = Callable[[Path, str, str], list[str]]
OUT = "made"
# name: (arguments from folder, model, data; what the message must hold)
CASES: dict[str, tuple[Arguments, str]] = {
    "model missing": (lambda f, m, d: ["eval", str(f / "no.onnx"), "--data", d], "no such file"),
    "model no onnx": (lambda f, m, d: ["eval", text_as_onnx(f), "--data", d], "not an ONNX model"),
    "model truncated": (lambda f, m, d: ["eval", truncated_onnx(f), "--data", d], "truncated"),
    "external data missing": (
        lambda f, m, d: ["simplify", external_missing(f), "-o", str(f / OUT)],
        "is missing. Copy it beside",
    ),
    "external data outside": (
        lambda f, m, d: ["simplify", external_outside(f), "-o", str(f / OUT)],
        "outside of the model's folder",
    ),
    "pickle with code": (
        lambda f, m, d: [
            *("export", "trimtab.models:digits_cnn", "-o", str(f / OUT)),
            *("--weights", pickle_with_code(f)),
        ],
        "weights.pt",
    ),
    "data missing": (lambda f, m, d: ["eval", m, "--data", str(f / "no.npz")], "no such file"),
    "data wrong name": (lambda f, m, d: ["eval", m, "--data", wrong_name(f)], "has no array for"),
    "data wrong shape": (
        lambda f, m, d: ["eval", m, "--data", wrong_shape(f)],
        "has rows of shape [",
    ),
    "data wrong dtype": (lambda f, m, d: ["eval", m, "--data", wrong_dtype(f)], "is float64"),
    "data NaN": (lambda f, m, d: ["eval", m, "--data", with_nan(f)], "in row 17"),
    "data NaN in calibration": (
        lambda f, m, d: ["quantize", m, "-o", str(f / OUT), "--data", with_nan(f)],
        "in row 17",
    ),
    "data no rows": (lambda f, m, d: ["eval", m, "--data", no_rows(f)], "no rows"),
    "labels out of range": (
        lambda f, m, d: ["eval", m, "--data", labels_out_of_range(f)],
        "labels range from 10",
    ),
    "labels no integers": (lambda f, m, d: ["eval", m, "--data", float_labels(f)], "integers"),
    "unknown metric": (
        lambda f, m, d: ["eval", m, "--data", d, "--metric", "top-1"],
        "Did you mean 'top1'",
    ),
    "metric needs reference": (
        lambda f, m, d: ["eval", m, "--data", d, "--metric", "cosine"],
        "--reference",
    ),
    "unknown command": (lambda f, m, d: ["quantise", m], "Did you mean 'quantize'"),
    "unknown option": (
        lambda f, m, d: ["prune", m, "-o", str(f / OUT), "--sparsty", "0.5"],
        "Did you mean '--sparsity'",
    ),
    "wrong value": (
        lambda f, m, d: ["prune", m, "-o", str(f / OUT), "--sparsity", "lots"],
        "'lots' is not a number",
    ),
    "sparsity beyond one": (
        lambda f, m, d: ["prune", m, "-o", str(f / OUT), "--sparsity", "1.5"],
        "1.5",
    ),
    "unknown pass": (
        lambda f, m, d: ["run", recipe(f, "- simplfy"), m, "-o", str(f / OUT)],
        "Did you mean 'simplify'",
    ),
    "unknown field": (
        lambda f, m, d: ["run", recipe(f, "- simplify: {chek: 1}"), m, "-o", str(f / OUT)],
        "has no field 'chek'",
    ),
    "unknown target": (
        lambda f, m, d: ["quantize", m, "-o", str(f / OUT), "--target", "arm"],
        "unknown target 'arm'",
    ),
    "provider missing": (
        lambda f, m, d: ["eval", m, "--data", d, "--provider", "CUDAExecutionProvider"],
        "is not in the installed onnxruntime",
    ),
    "bench provider missing": (
        lambda f, m, d: ["bench", m, "--shape", "x=1x3x8x8", "--provider", "CUDAExecutionProvider"],
        "is not in the installed onnxruntime",
    ),
    "output not writable": (
        lambda f, m, d: ["optimize", m, "-o", file_in_the_way(f), "--data", d],
        "cannot be written",
    ),
    "output of a pass not writable": (
        lambda f, m, d: ["simplify", m, "-o", file_in_the_way(f)],
        "cannot be written",
    ),
    "same data twice": (
        lambda f, m, d: ["optimize", m, "-o", str(f / OUT), "--data", d, "--eval", d],
        "the same items",
    ),
    "no module": (
        lambda f, m, d: ["export", "nowhere.at:all", "-o", str(f / OUT)],
        "cannot import module 'nowhere.at'",
    ),
    "max-drop without eval": (
        lambda f, m, d: [
            *("quantize", m, "-o", str(f / OUT), "--mode", "dynamic", "--max-drop", "0.1"),
        ],
        "needs --eval",
    ),
    "field of the other mode": (
        lambda f, m, d: ["quantize", m, "-o", str(f / OUT), "--mode", "dynamic", "--ranges", "mse"],
        "no meaning with --mode dynamic",
    ),
    "bad time": (
        lambda f, m, d: ["optimize", m, "-o", str(f / OUT), "--data", d, "--time", "soon"],
        "is not a duration",
    ),
    "training longer than the search": (
        lambda f, m, d: [
            *("optimize", m, "-o", str(f / OUT), "--data", d, "--train", "20m", "--time", "10m"),
        ],
        "does not fit",
    ),
    "negative drop": (
        lambda f, m, d: ["optimize", m, "-o", str(f / OUT), "--data", d, "--max-drop", "-1"],
        "must be 0 or more",
    ),
    "unknown goal": (
        lambda f, m, d: ["optimize", m, "-o", str(f / OUT), "--data", d, "--goal", "speed"],
        "unknown goal 'speed'",
    ),
    "unknown pass of a search": (
        lambda f, m, d: [
            *("optimize", m, "-o", str(f / OUT), "--data", d, "--no-cache"),
            *("--passes", "simplfy"),
        ],
        "Did you mean 'simplify'",
    ),
    "milliseconds of another machine": (
        lambda f, m, d: [
            *("optimize", m, "-o", str(f / OUT), "--data", d, "--no-cache"),
            *("--target", "cuda", "--max-latency", "p95=5ms"),
        ],
        "cannot be proved",
    ),
    "zero threads": (
        lambda f, m, d: ["optimize", m, "-o", str(f / OUT), "--data", d, "--threads", "-1"],
        "not a whole number above 0",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_message_exit_code_2_and_nothing_left(
    case: str,
    tmp_path: Path,
    model: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = CASES[case]
    command = arguments(tmp_path, str(model), str(data))
    before = sorted(p for p in tmp_path.rglob("*"))
    try:
        code = main(command)
    except SystemExit as error:  # the parser's own refusals
        code = int(error.code or 0)
    stderr = capsys.readouterr().err
    assert code == 2, stderr
    assert message in stderr
    assert "Traceback" not in stderr
    assert stderr.strip().splitlines()[-1].startswith("trimtab"), stderr
    assert sorted(p for p in tmp_path.rglob("*")) == before
    assert not Path("was_run").exists()


def test_debug_shows_where(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no such file"):
        main(["eval", str(tmp_path / "no.onnx"), "--data", "x.npz", "--debug"])


def test_interrupt_is_no_traceback(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(path: Path) -> Model:
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "load", interrupted)
    assert main(["simplify", str(model), "-o", str(model.parent / "out.onnx")]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [p.name for p in model.parent.iterdir()] == ["model.onnx"]
