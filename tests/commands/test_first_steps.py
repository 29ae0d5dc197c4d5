"""Bad first steps of a new user, each with the answer that helps: one line, and exit code 2.

The other half of this list, broken models and data, is in `test_bad_input.py`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from graphs import model_of

from trimtab.cli import main
from trimtab.commands import registry
from trimtab.commands.registry import command, names, parser_of
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.metrics.metric import Quality
from trimtab.passes import find
from trimtab.runtime_bench.measure.compare import compare

#: Arguments, and a part of the answer; {m} is a model, {d} its data.
STEPS: dict[str, tuple[list[str], str]] = {
    "no output": (["simplify", "{m}"], "needs -o OUT. For example: trimtab simplify"),
    "misspelt command": (["optimise", "{m}"], "Did you mean 'optimize'?"),
    "misspelt command of help": (["help", "prun"], "Did you mean 'prune'?"),
    "option before the command": (["--data", "{d}", "eval", "{m}"], "The command comes first"),
    "misspelt option": (["quantize", "{m}", "--dta", "{d}"], "Did you mean '--data'?"),
    "misspelt option of bench": (["bench", "{m}", "--max-tim=3s"], "Did you mean '--max-time'?"),
    "misspelt file": (["simplify", "modle.onnx", "-o", "o.onnx"], "Files there: "),
    "wrong folder": (["simplify", "models/model.onnx", "-o", "o.onnx"], "no such f"),
    "a folder in place of a model": (["simplify", ".", "-o", "o.onnx"], "folder"),
    "weights in place of a model": (["simplify", "w.pt", "-o", "o.onnx"], "w.pt"),
    "python file with its ending": (
        ["export", "net.py:make", "-o", "o.onnx"],
        "Did you mean 'net:make'",
    ),
    "python file alone": (["export", "net.py", "-o", "o.onnx"], "net:factory"),
    "misspelt factory": (["export", "net:mak", "-o", "o.onnx"], "Did you mean 'make'?"),
    "callable with its file's ending": (
        ["bench", "--callable", "net.py:make"],
        "Did you mean 'net:make'?",
    ),
    "nothing to measure": (["bench"], "Give BASE, or --command, or --callable"),
    "shape without a name": (["bench", "{m}", "--shape", "1x3"], "Write it as NAME=1x3x224x224"),
    "shape of the wrong size": (["bench", "{m}", "--shape", "x=2x4"], "does not fit"),
    "shape of no input": (["bench", "{m}", "--shape", "y=2x3"], "no input 'y'"),
    "time without sense": (["bench", "{m}", "--max-time", "fast"], "Write it as 5ms, 30s or 10m"),
    "prune without a strength": (["prune", "{m}", "-o", "o.onnx"], "Give --channels 30%"),
    "percent above a whole": (
        ["prune", "{m}", "-o", "o.onnx", "--sparsity", "180%"],
        "is not a share",
    ),
    "percent of nothing": (["prune", "{m}", "-o", "o.onnx", "--sparsity", "%"], "not a number"),
    "no data": (["eval", "{m}", "--data", "none.npz"], "no such file"),
    "data of another input": (["eval", "{m}", "--data", "other.npz"], "has no array for"),
    "choice misspelt": (
        ["quantize", "{m}", "-o", "o.onnx", "--data", "{d}", "--ranges", "mze"],
        "Did you mean 'mse'?",
    ),
    "output is the input": (["simplify", "{m}", "-o", "{m}"], "or give --force"),
    "output in a folder that is missing": (
        ["simplify", "{m}", "-o", "a/b/c.onnx"],
        "there is no such folder",
    ),
    "read-only folder": (["simplify", "{m}", "-o", "/proc/o.onnx"], "cannot be written"),
    "metric by its usual name": (
        ["eval", "{m}", "--data", "{d}", "--metric", "accuracy"],
        "Did you mean 'top1'?",
    ),
    "result in place of budgets": (["gate", "result.json"], "give the budgets.yaml"),
    "output without a name": (["simplify", "{m}", "-o", ""], "Name the file with -o"),
    "device without an action": (["device"], "needs add|list|remove|check|install"),
    "budgets missing": (["gate", "budgets.yml"], "no such file"),
    "shell unknown": (["completion", "fish"], "choose from"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: its name has a space and a letter beyond ASCII."""
    place = tmp_path / "mein Ördner"
    place.mkdir()
    model_of("(float[2,3] x) => (float[2,3] y) { y = Relu(x) }").save(place / "modél 1.onnx")
    np.savez(place / "d.npz", x=np.zeros((4, 3), "f"))
    np.savez(place / "other.npz", picture=np.zeros((4, 3), "f"))
    (place / "result.json").write_text('{"schema": 1, "kind": "optimize"}')
    (place / "w.pt").write_bytes(b"weights")
    (place / "net.py").write_text("def make(): ...\n")
    monkeypatch.chdir(place)
    monkeypatch.delitem(sys.modules, "net", raising=False)
    return place


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    names_ = {"{m}": "modél 1.onnx", "{d}": "d.npz"}
    try:
        code = main([names_.get(a, a) for a in arguments])
    except SystemExit as error:  # the parser's own refusals
        code = int(error.code or 0)
    return code, capsys.readouterr().err


@pytest.mark.parametrize("step", STEPS)
def test_a_bad_first_step_is_answered_in_one_line(step, folder, capsys) -> None:
    arguments, says = STEPS[step]
    before = sorted(folder.rglob("*"))
    code, error = answer(arguments, capsys)
    assert code == 2, error
    assert says in error.splitlines()[-1]
    assert error.splitlines()[-1].startswith("trimtab")
    assert "Traceback" not in error
    assert [p for p in sorted(folder.rglob("*")) if "__pycache__" not in p.parts] == before


GOOD: dict[str, list[str]] = {
    "version": ["version"],
    "-V": ["-V"],
    "help of a command": ["help", "bench"],
    "help of a pass": ["simplify", "-h"],
    "spaces and letters in paths": ["simplify", "{m}", "-o", "ö ü.onnx"],
    "a percent sign": ["prune", "{m}", "-o", "o.onnx", "--sparsity", "50%"],
    "quiet": ["simplify", "{m}", "-o", "o.onnx", "-q"],
    "completion": ["completion", "bash"],
}


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("step", GOOD)
def test_a_good_first_step_works_on_streams_of_any_encoding(
    step, encoding, folder, capsys, monkeypatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    if step == "completion":
        pytest.importorskip("shtab", reason="needs shtab")
    code, error = answer(GOOD[step], capsys)
    assert code == 0, error
    if step == "quiet":
        assert error == ""


def test_json_goes_to_standard_output_alone_and_messages_to_the_other_stream(folder, capfd) -> None:
    quick = ["--in-process", "--max-time", "0.2s", "--threads", "1,2"]
    assert main(["bench", "modél 1.onnx", *quick, "--json", "-"]) == 0
    out = capfd.readouterr().out
    assert [run["threads"] for run in json.loads(out)["runs"]] == [1, 2]


def test_a_reader_that_closes_the_pipe_is_no_error(folder, monkeypatch) -> None:
    class Closed(io.StringIO):
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return os.open(os.devnull, os.O_WRONLY)

    monkeypatch.setattr(sys, "stdout", Closed())
    assert main(["passes"]) == 0


@pytest.mark.parametrize("name", names())
def test_helps_use_words_for_values_and_show_no_empty_default(name, capsys) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for odd in (
        "(default )",
        "(default None)",
        "(default none)",
        " FLOAT",
        " INT",
        " STR",
        "TUPLE",
    ):
        assert odd not in text
    assert "--quiet" in text
    assert re.match(rf"usage: trimtab {name} .*\[options\] for example: trimtab {name}\b", text)
    example = shlex.split(command(name).EXAMPLE)
    parser_of(name, command(name)).parse_intermixed_args(example[2:])


REFUSED: list[Callable[[], object]] = [
    lambda: find("quantize-static")(ranges="mze"),
    lambda: find("quantize-static")(ranges=3),
    lambda: find("prune-magnitude")(sparsity="lots"),
    lambda: find("prune-channels")(ratio=1.5),
    lambda: find("quantize-weights")(bits=5),
]


@pytest.mark.parametrize("make", REFUSED)
def test_a_pass_checks_its_fields_when_it_is_made(make: Callable[[], object]) -> None:
    with pytest.raises(OptionError):
        make()


def test_values_are_shown_in_one_line_and_onnx_ir_logs_none(folder, caplog) -> None:
    model = model_of("(float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    (found,) = compare(model, [model], in_process=True, max_seconds=0.2)
    quality = Quality("top1", 0.5, np.zeros(1000), 1000)
    for value in (model, found, found.base, quality, Dataset.open("d.npz")):
        assert "\n" not in repr(value)
        assert len(repr(value)) < 200
    with caplog.at_level(logging.INFO):
        find("simplify")()(model)
    assert not [r for r in caplog.records if r.name.startswith("onnx_ir")]


@pytest.mark.parametrize("named", ["out", "out/recipe.yaml"])
def test_a_recipe_makes_a_file_or_a_folder_as_the_output_is_named(named, folder) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "recipe.yaml").write_text("passes:\n- simplify\n")
    assert main(["run", named, "modél 1.onnx", "-o", "again.onnx"]) == 0
    assert main(["run", named, "modél 1.onnx", "-o", "again"]) == 0
    assert (folder / "again.onnx").read_bytes() == (folder / "again/model.onnx").read_bytes()
    assert (folder / "again/recipe.yaml").is_file()


@pytest.mark.parametrize("option", [["--json", "-"], ["--json=-"]])
def test_json_on_standard_output_stands_alone_however_it_is_asked_for(
    option, folder, capfd
) -> None:
    assert main(["simplify", "modél 1.onnx", "-o", "o.onnx", *option]) == 0
    assert json.loads(capfd.readouterr().out)["kind"] == "passes"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("quantize", "trimtab.passes.QuantizeAuto"),
        ("prune", "trimtab.passes.PruneChannels"),
        ("nothing", "has no attribute 'nothing'"),
    ],
)
def test_the_name_of_a_command_in_python_leads_to_its_passes(name: str, told: str) -> None:
    import trimtab

    with pytest.raises(AttributeError, match=re.escape(told)):
        getattr(trimtab, name)


@pytest.mark.parametrize("name", [n for n in names() if n != "help"])
def test_a_command_without_what_it_needs_names_that_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = registry.command(name)
    needed = registry._needed(registry.parser_of(name, module))
    if all(word.startswith("[") for word in needed):
        pytest.skip("it needs nothing")
    with pytest.raises(SystemExit):
        main([name])
    [line] = capsys.readouterr().err.splitlines()
    assert f"For example: {module.EXAMPLE}" in line
    assert any(word.rpartition(" ")[2] in line for word in needed)
    assert main(["--help", name]) == 0
    assert module.EXAMPLE in capsys.readouterr().out


def test_what_belongs_to_no_option_is_told_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["quantize", "m.onnx", "-o", "out.onnx", "a.jpg", "b.jpg"])
    [line] = capsys.readouterr().err.splitlines()
    assert "'a.jpg'" in line
    assert "For example: trimtab quantize" in line
