"""Lines that a command prints about a pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from graphs import cnn

from trimtab.core.model import Step
from trimtab.report.lines import pass_lines
from trimtab.report.pass_outcome import PassOutcome


def test_a_report_of_rows_stands_on_lines_and_what_was_left_alone_has_its_reason(
    tmp_path: Path,
) -> None:
    model = cnn()
    notes = {"groups": [{"name": "a", "share": 0.123456}], "declined": [["conv", "too small"]]}
    after = replace(model, lineage=(Step("some-pass", {}, model.digest, notes),))
    lines = pass_lines(PassOutcome(model, after, after), after.save(tmp_path / "m.onnx"))
    assert lines[1:] == [
        "groups:",
        "  name a, share 0.1235",
        "left alone (1):",
        "  conv: too small",
    ]
