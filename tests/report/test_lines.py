"""Lines that a command prints about a pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from graphs import cnn

from trimtab.cli import main
from trimtab.core.lineage import Step
from trimtab.report.lines import next_steps, pass_lines
from trimtab.report.notes import LONGEST
from trimtab.report.pass_outcome import PassOutcome


def test_a_report_of_rows_stands_on_lines_and_what_was_left_alone_has_its_reason(
    tmp_path: Path,
) -> None:
    model = cnn()
    groups = [{"name": "a", "share": 0.123456}, {"name": "b", "cut": True}]
    notes = {"groups": groups, "bytes": [2, 1], "declined": [["conv", "too small"]]}
    after = replace(model, lineage=(Step("some-pass", {}, model.digest, notes),))
    lines = pass_lines(PassOutcome(model, after, after), after.save(tmp_path / "m.onnx"))
    assert lines[1:] == [
        "groups:",
        "  name  share  cut",
        "  ----  -----  ---",
        "  a     12.3%",
        "  b            yes",
        "left alone (1):",
        "  conv: too small",
    ]


def test_lists_of_any_length_take_a_short_line(tmp_path: Path) -> None:
    model = cnn()
    notes = {
        "nodes": [358, 269],
        "mixed": {
            "float": [f"layer{n}" for n in range(200)],
            "curve": [{"float": n, "drop": 1 / 3} for n in range(20)],
            "ranking": [[f"layer{n}", 0.123456] for n in range(2)],
        },
        "error": None,
    }
    after = replace(model, lineage=(Step("some-pass", {}, model.digest, notes),))
    lines = pass_lines(PassOutcome(model, after, after), after.save(tmp_path / "m.onnx"))
    assert lines[1] == "nodes: 358 -> 269"
    assert "layer0" in "".join(lines)
    assert "layer199" not in "".join(lines)
    assert all(len(line) <= LONGEST for line in lines[1:])


def test_the_next_steps_are_commands_for_a_shell(tmp_path: Path) -> None:
    file = tmp_path / "my int8.onnx"
    assert next_steps(file, "float.onnx", judge=True) == []  # nothing stands there
    file.write_bytes(b"")
    assert next_steps(file, "float.onnx", judge=True) == [
        f"next: trimtab eval '{file}' --reference float.onnx --data EVAL",
        f"      trimtab bench float.onnx '{file}'",
    ]


def test_json_has_all_layers_where_the_lines_have_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, written = str(tmp_path / "m.onnx"), tmp_path / "o.onnx"
    cnn().save(source)
    wrote = ["-o", str(written), "--json", str(tmp_path / "o.json"), "--keep"]
    assert main(["quantize-dynamic", source, *wrote]) == 0
    document = json.loads((tmp_path / "o.json").read_text())
    assert document["kind"] == "passes"
    assert document["model"] == source
    assert document["output"] == str(written)
    assert document["size_bytes"][1] == pytest.approx(written.stat().st_size, rel=0.01)
    assert document["steps"][-1]["pass"] == "quantize-dynamic"
    assert (
        f"left alone ({len(document['steps'][-1]['notes']['declined'])})" in capsys.readouterr().out
    )


@pytest.mark.parametrize("json_file", ["-", "o.onnx"])
def test_json_does_not_share_a_file_with_the_model(
    json_file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    cnn().save("m.onnx")
    assert main(["simplify", "m.onnx", "-o", json_file, "--json", json_file]) == 2
    assert "is the output as well" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
