"""The program survives what kills onnxruntime, and what never ends, and says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.ort.session import run_units
from trimtab.core.watch import SECONDS_EACH, Note
from trimtab.supervisor import CallWatch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs sigtimedwait")


def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trimtab", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | env,
        timeout=200,
    )


def save_endless(folder: Path) -> None:
    """Write a Loop whose condition could end it, and does not."""
    body = onnx.parser.parse_graph(
        "b (int64 i, bool c, float[1] s) => (bool d, float[1] t) "
        "{ n = Not(c) d = Or(c, n) t = Add(s, x) }"
    )
    loop = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [loop],
        "g",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array(1 << 62), "trips")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "m.onnx")


@pytest.mark.slow
def test_an_abort_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text("import os\nos.abort()\n")
    (tmp_path / "tmp").mkdir()
    done = run("export", "user:make", "-o", "o.onnx", cwd=tmp_path, TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode == 2
    assert "trimtab: the command: the process died of SIGABRT" in done.stderr
    assert "bug" not in done.stderr
    assert not list((tmp_path / "tmp").iterdir())
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.slow
def test_a_loop_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    save_endless(tmp_path)
    done = run("simplify", "m.onnx", "-o", "o.onnx", cwd=tmp_path, TRIMTAB_HANG_SECONDS="1")
    assert done.returncode == 2
    assert "does not end within" in done.stderr
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_reaches_the_command_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    save_endless(tmp_path)
    (tmp_path / "user.py").write_text("import time\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "trimtab", "export", "user:make", "-o", "out/m.onnx"]
    (tmp_path / "tmp").mkdir()
    env = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=pipe,
        stdout=pipe,
        env=env,
        # A shell lets what runs in its background ignore SIGINT, and so would this command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        while not list((tmp_path / "tmp").iterdir()):
            time.sleep(0.05)
        time.sleep(1)  # until it imports, and so is no longer starting
        process.send_signal(getattr(signal, name))
        _, error = process.communicate(timeout=60)
    assert process.returncode == (130 if name == "SIGINT" else -15)
    assert b"Traceback" not in error
    assert not list((tmp_path / "tmp").iterdir())


def test_a_call_is_late_by_what_it_computes() -> None:
    """Waiting for a processor, or being stopped by Ctrl-Z, is not the call's own time."""
    note, idle = Note(), Note()
    note.write(1, 0.01, "computing")
    idle.write(1, 1e6, "waiting")
    watch, waits = (CallWatch(os.getpid(), n) for n in (note, idle))
    assert not watch.late()
    assert not waits.late()
    while not watch.late():
        sum(range(1000))
    assert not waits.late()
    note.write(2, 1e6, "another call")
    assert not watch.late()


def test_runs_get_time_for_their_size_and_for_what_rows_took() -> None:
    class Session:
        trimtab_bytes = 100_000_000
        trimtab_seconds_each = 0.0

    picture = {"x": np.zeros((2, 3, 224, 224), np.float32)}
    small, large = Session(), Session()
    small.trimtab_bytes = 1000
    assert run_units(small, picture, 2) == pytest.approx(2, rel=0.1)
    first = run_units(large, picture, 2)
    assert first > 1000 / SECONDS_EACH
    large.trimtab_seconds_each = 60.0
    assert run_units(large, picture, 2) * SECONDS_EACH > first * SECONDS_EACH + 20 * 60
