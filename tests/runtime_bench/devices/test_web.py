from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from heard import Heard
from int8_graphs import normal, residual

from trimtab.cli import main
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Silent
from trimtab.core.runner import run_here
from trimtab.runtime_bench.bench.bench import Timing
from trimtab.runtime_bench.devices.web_bench import WebBench, WebContender, difference
from trimtab.runtime_bench.devices.web_browser import WebDevice, is_web
from trimtab.runtime_bench.devices.web_runner import WebRunner
from trimtab.runtime_bench.open import runner_on

CONFIG = SessionConfig()


def device(name: str = "web") -> WebDevice:
    """The browser; the test is skipped where it or its runtime is missing."""
    try:
        return WebDevice.of(name)
    except OptionError as error:
        pytest.skip(f"needs Chromium and onnxruntime-web, or Node and onnxruntime-node: {error}")


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[WebBench]:
    with WebBench(device(getattr(request, "param", "web"))) as made:
        yield made


def contender(bench: WebBench, model: Model, folder: Path) -> WebContender:
    return WebContender(bench.device, model, "m", CONFIG, folder, progress=Silent(), limit=20.0)


@pytest.mark.parametrize("bench", ["web", "node"], indirect=True)
def test_models_are_compared_in_the_browser_and_in_node(bench: WebBench) -> None:
    heard = bench.progress = Heard()
    model = residual()
    (found,) = bench.compare(
        model, [model], random_feeds(model), Timing(CONFIG, max_seconds=4), Silent()
    )
    assert found.base.samples_ns
    assert found.candidate.samples_ns
    assert f"onnxruntime-{bench.device} " in found.base.environment.onnxruntime
    assert [float(text.split(" by ")[1].split()[0]) < 1e-4 for text in heard.said] == [True, True]


def test_a_page_that_dies_is_one_message_and_the_others_go_on(
    bench: WebBench, tmp_path: Path
) -> None:
    model = residual()
    feeds = random_feeds(model)
    dies, lives = (contender(bench, model, tmp_path) for _ in range(2))
    try:
        dies.warm(feeds)
        lives.warm(feeds)
        os.killpg(dies.worker._process.pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"the (page died|browser ended) while it was to run"):
            dies.time(100)
        assert len(lives.time(3).ns) == 3
    finally:
        dies.close()
        lives.close()


def test_a_model_that_the_web_build_refuses_is_one_message(bench: WebBench, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["": 17, "other": 1]> m (float[1] x) => (float[1] y) '
    model = Model.from_proto(onnx.parser.parse_model(text + "{ y = other.Strange (x) }"))
    refused = contender(bench, model, tmp_path)
    try:
        with pytest.raises(RunError, match=r"onnxruntime-web [\d.]+ refuses it: .*Strange"):
            refused.warm({"x": np.zeros(1, np.float32)})
    finally:
        refused.close()


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("web:metal", {}, "'metal' is not a provider of a browser"),
        ("web", {"PATH": "/nowhere", "TRIMTAB_CHROMIUM": "/nowhere"}, "no Chromium"),
        ("web", {"TRIMTAB_NODE_MODULES": "/nowhere"}, "npm install onnxruntime-web"),
        ("node", {"TRIMTAB_NODE_MODULES": "/nowhere"}, "npm install onnxruntime-node"),
        ("node", {"PATH": "/nowhere"}, "no Node"),
        ("node:gpu", {}, "'gpu' is not a provider"),
    ],
)
def test_what_is_missing_is_one_message(
    name: str, changed: dict[str, str], said: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    program = {"web": "chromium", "node": "node"}.get(name, "")
    if "TRIMTAB_NODE_MODULES" in changed and shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    for key, value in changed.items():
        monkeypatch.setenv(key, value)
    path = residual().save(tmp_path / "m.onnx")
    assert main(["bench", str(path), "--on", name]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_names_of_the_browser_and_differences() -> None:
    assert is_web("web")
    assert is_web("web:webgpu")
    assert is_web("node")
    assert not is_web("ssh://web")
    one = {"y": np.array([1.0, -4.0], np.float32)}
    assert difference(one, {"y": np.array([1.0, -3.0], np.float32)}) == 0.25
    assert difference(one, {}) == np.inf


GATE = "model: m.onnx\nbaseline: m.onnx\ndata: rows.npz\nmetric: fidelity\nthreads: 1\n"


def gated(folder: Path, budgets: str, on: str) -> int:
    model = residual()
    model.save(folder / "m.onnx")
    np.savez(folder / "rows.npz", **next(iter(normal(model, rows=3).sized(3))).feeds)
    (folder / "b.yaml").write_text(f"{GATE}budgets: {{{budgets}}}\n")
    return main(["gate", str(folder / "b.yaml"), "--on", on, "--max-time", "4s"])


def test_a_gate_measures_and_judges_in_the_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device()
    run, asked = WebRunner.__call__, []

    def recorded(self: WebRunner, model: Model, data: Dataset, config: SessionConfig) -> Any:
        asked.append(str(self.device))
        return run(self, model, data, config)

    monkeypatch.setattr(WebRunner, "__call__", recorded)
    assert gated(tmp_path, "drop: 0.001, p50: 10s", "web") in {0, 3}  # 3: too slow for 8 runs
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["drop:", "0.001", "ok", "0.0000"] in words
    assert any(line[:2] == ["p50:", "10s"] and line[3] != "-" for line in words)
    assert set(asked) == {"web"}


@pytest.mark.parametrize(
    ("on", "budget", "why"),
    [
        ("web", "rss: 100MB", "load time and memory are not measured in a browser"),
        ("web:webgpu", "p50: 10s", "runs on a software adapter here: its times mean nothing"),
    ],
)
def test_a_budget_of_what_is_not_measured_there_is_refused(
    on: str, budget: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device(on)
    assert gated(tmp_path, budget, on) == 2
    said = capsys.readouterr().err
    assert why in said
    assert f"on {on}" in said


def test_quality_is_judged_by_the_browser_s_own_outputs(tmp_path: Path) -> None:
    device()
    model = residual()
    data = normal(model, rows=3).sized(1)
    with runner_on("web") as runner:
        assert runner is not None
        found = list(runner(model, data, CONFIG))
    assert len(found) == 3
    for (_, there), (_, here) in zip(found, run_here(model, data, CONFIG), strict=True):
        assert difference(here, there) < 1e-4


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="groups of processes are POSIX's")
@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_programs_of_a_group_end_with_the_process_that_started_them(killed: bool) -> None:
    code = (
        "import os, sys, time\n"
        "from trimtab.runtime_bench.devices.web_browser import start_group\n"
        "program = start_group(['sh', '-c', 'sleep 600 & exec sleep 600'])\n"
        "print(program.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    assert parent.stdin is not None
    assert parent.stdout is not None
    group = int(parent.stdout.readline())
    os.killpg(group, 0)  # it is there
    if killed:
        parent.kill()
    else:
        parent.stdin.close()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 30
    while _lives(group) and time.monotonic() < end:
        time.sleep(0.01)
    assert not _lives(group)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
