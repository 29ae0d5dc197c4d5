"""Lines that a command prints about a pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from graphs import cnn

from trimtab.core.model import Step
from trimtab.report.lines import next_steps, pass_lines
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
        "  name   share  cut",
        "  ----  ------  ---",
        "  a     0.1235",
        "  b             yes",
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
    assert lines[1:] == [
        "nodes: [358, 269]",
        "mixed:",
        "  float: layer0; layer1; layer2; layer3; layer4; layer5 and 194 more",
        "  curve: " + "; ".join(f"float {n}, drop 0.3333" for n in range(6)) + " and 14 more",
        "  ranking: layer0: 0.1235; layer1: 0.1235",
        "error: -",
    ]


def test_the_next_steps_are_commands_for_a_shell(tmp_path: Path) -> None:
    file = tmp_path / "my int8.onnx"
    assert next_steps(file, "float.onnx", judge=True) == []  # nothing stands there
    file.write_bytes(b"")
    assert next_steps(file, "float.onnx", judge=True) == [
        f"next: trimtab eval '{file}' --reference float.onnx --data EVAL",
        f"      trimtab bench float.onnx '{file}'",
    ]
