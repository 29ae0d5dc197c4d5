"""`--timings`: where the time of a command went."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import graphs
import pytest

from trimtab.cli import main
from trimtab.core.timings import REST, stage, staged, timed


def test_stages_count_the_time_that_no_stage_within_takes() -> None:
    with timed(time.monotonic()) as found:
        with stage("outer"):
            for _ in staged("items", range(3)):
                with stage("inner"):
                    time.sleep(0.01)
        other = threading.Thread(target=lambda: stage("elsewhere").__enter__())
        other.start()
        other.join()
    assert found.calls == {"outer": 1, "inner": 3, "items": 4}
    assert found.seconds["inner"] > found.seconds["outer"]
    total = found.to_json()
    assert sum(e["seconds"] for e in total["stages"]) == pytest.approx(total["seconds"], abs=0.01)


def test_a_command_tells_where_its_time_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = graphs.mlp().save(tmp_path / "m.onnx"), tmp_path / "out.onnx"
    assert main(["simplify", str(source), "-o", str(out), "--timings"]) == 0
    table = capsys.readouterr().err
    assert "pass simplify" in table
    assert "in all" in table
    command = ["simplify", str(source), "-o", str(out), "--force"]
    assert main([*command, f"--timings={tmp_path / 't.json'}"]) == 0
    stages = {e["stage"] for e in json.loads((tmp_path / "t.json").read_text())["stages"]}
    assert {"pass simplify", "reading model files", "loading models", REST} <= stages


def test_times_are_told_of_a_command_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simplify", str(tmp_path / "no.onnx"), "-o", "x.onnx", "--timings"]) == 2
    assert "in all" in capsys.readouterr().err


def test_a_file_of_times_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = graphs.mlp().save(tmp_path / "m.onnx"), tmp_path / "out.onnx"
    option = f"--timings={tmp_path / 'm.onnx' / 't.json'}"
    assert main(["simplify", str(source), "-o", str(out), option]) == 2
    assert option in capsys.readouterr().err
    assert out.exists()
