"""onnxruntime's telemetry: off in the processes of trimtab, unless the user says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import graphs
import pytest

from trimtab.core.ort.telemetry import VARIABLE, disable_telemetry

ROOT = Path(__file__).resolve().parents[3]


def files_of_a_run(home: Path, *arguments: str, **variables: str) -> list[str]:
    """Run a command with another home and name the files that it left there."""
    model = graphs.mlp().save(home / "model.onnx")
    kept = {k: v for k, v in os.environ.items() if k not in {VARIABLE, "XDG_CACHE_HOME"}}
    before = set(home.rglob("*"))
    subprocess.run(
        [sys.executable, "-m", "trimtab", *arguments, str(model), str(model)],
        env=kept | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | variables,
        cwd=home,
        capture_output=True,
        check=True,
    )
    return sorted(path.name for path in set(home.rglob("*")) - before)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux wheels write such files")
def test_a_measurement_in_worker_processes_leaves_no_file_of_telemetry(tmp_path: Path) -> None:
    found = files_of_a_run(tmp_path, "bench", "--max-time", "12s", "--no-card", "--threads", "1")
    assert [name for name in found if "onnxruntime" in name or "deviceid" in name] == []


def test_it_is_off_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    disable_telemetry()
    assert os.environ[VARIABLE] == "1"
    monkeypatch.setenv(VARIABLE, "0")
    disable_telemetry()
    assert os.environ[VARIABLE] == "0"
