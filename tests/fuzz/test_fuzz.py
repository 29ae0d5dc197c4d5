"""Each command on a mutant of each seed; `make fuzz` takes 2,000 of them through all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxsim", reason="the fuzzed commands need onnxsim")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="runs are forked and limited as on Linux")
def test_no_mutant_is_called_a_bug_or_kills_a_command() -> None:
    """In a process of its own: this one has threads of onnxruntime, which a fork would lose."""
    script = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, str(script), "--first", "6", "--mutants", "48", "--each", "1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FIGURE faults=0" in done.stdout
