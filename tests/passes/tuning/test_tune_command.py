"""`trimtab tune`: what it writes and prints. The clocks are fakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import graphs
import pytest
from rewrite_cases import NORM

from trimtab.cli import main
from trimtab.commands.tune import _cache_name
from trimtab.core.context import Ratio
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.session_file import session_config
from trimtab.tune_clock import DecidingClock, SessionClock


class SumWins:
    """A bench that finds Sum twice as fast as Add."""

    def median_ns(self, models: Any, *args: Any) -> list[float]:
        return [500.0 if "Sum" in graphs.ops(m) else 1000.0 for m in models]

    def compare(self, base: Model, candidate: Model, *args: Any) -> Ratio:
        value = self.median_ns([base])[0] / self.median_ns([candidate])[0]
        return Ratio(value, value - 0.05, value + 0.05)


class LessThreadsWin:
    """A bench that finds one thread faster than more."""

    def __init__(self, seed: int) -> None: ...

    def compare_configs(
        self, model: Any, base: SessionConfig, candidate: SessionConfig, *args: Any
    ) -> Ratio:
        value = base.threads / candidate.threads
        return Ratio(value, value - 0.05, value + 0.05)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("trimtab.tune_clock.DecidingClock", SumWins)
    monkeypatch.setattr("trimtab.tune_clock.SessionClock", LessThreadsWin)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return str(graphs.model_of(NORM % "Add").save(tmp_path / "model.onnx"))


def test_writes_the_faster_graph_and_the_options_beside_it(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "tuned.onnx"
    assert main(["tune", model, "-o", str(out), "--threads", "2", "--time", "60s"]) == 0
    assert graphs.ops(Model.load(out)) == ["Sum", "LayerNormalization"]
    assert session_config(out).threads == 1
    assert json.loads((out.parent / "session.json").read_text())["gains"]
    printed = capsys.readouterr().out
    assert re.search(r"sum-before-norm: 1 site, .*measured 2\.00x", printed)
    assert "threads 1: 2.00x" in printed


@pytest.mark.parametrize("spread", [0.05, 0.9])
def test_what_was_tried_is_told_once(
    spread: float,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unsure(bench: Any, base: Model, candidate: Model, *args: Any) -> Ratio:
        return Ratio(2.0, 2.0 - 2 * spread, 2.0 + 2 * spread)

    monkeypatch.setattr(SumWins, "compare", unsure)
    out, notes = str(tmp_path / "tuned.onnx"), tmp_path / "notes.json"
    options = ["--threads", "2", "--time", "60s", "--json", str(notes)]
    assert main(["tune", model, "-o", out, *options]) == 0
    printed = capsys.readouterr()
    told = (printed.out + printed.err).splitlines()
    tried = json.loads(notes.read_text())["steps"][-1]["notes"]["tried"]
    assert [choice for choice in tried if sum(f"{choice}: " in t for t in told) != 1] == []
    no_meaning = [t for t in told if "has no meaning with one thread" in t]
    assert no_meaning == [
        "  has no meaning with one thread: spinning threads, dynamic block base 4"
    ]
    assert len(set(told)) == len(told)


def test_without_session_options_there_is_no_file_beside(model: str, tmp_path: Path) -> None:
    out = tmp_path / "tuned.onnx"
    assert main(["tune", model, "-o", str(out), "--no-session", "--threads", "2"]) == 0
    assert not (tmp_path / "session.json").exists()
    assert Model.load(out).lineage[-1].pass_name == "tune"


def test_a_dry_run_lists_sites_and_then_what_is_known(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", model, "--dry-run", "--threads", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["sum-before-norm", "1", "1", "-"]
    main(["tune", model, "-o", str(tmp_path / "o.onnx"), "--threads", "1", "--no-session"])
    capsys.readouterr()
    assert main(["tune", model, "--dry-run", "--threads", "1"]) == 0
    assert "2.00x [1.95, 2.05]" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.json"))


def test_a_dry_run_of_free_sizes_reports_the_least_gain_known(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    free = str(graphs.transformer().save(tmp_path / "free.onnx"))
    out = ["-o", str(tmp_path / "o.onnx"), "--no-session", "--threads", "1"]
    assert main(["tune", free, *out, "--shape", "x=1x4x16", "--rules", "sum-before-norm"]) == 0
    capsys.readouterr()
    assert main(["tune", free, "--dry-run", "--threads", "1"]) == 0
    assert "2.00x [1.95, 2.05]" in capsys.readouterr().out
    assert main(["tune", free, "--dry-run", "--threads", "1", "--shape", "x=1x9x16"]) == 0
    assert "2.00x" not in capsys.readouterr().out


def test_each_model_of_gpu_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "trimtab.runtime_bench.machine.gpu.nvidia_smi", lambda *_: ["NVIDIA H100 80GB"]
    )
    assert _cache_name("CUDAExecutionProvider") == "forms-nvidia-h100-80gb.json"
    assert _cache_name("CPUExecutionProvider") == "forms.json"


def test_a_shape_is_passed_on(model: str, tmp_path: Path) -> None:
    out = str(tmp_path / "o.onnx")
    options = ["--no-session", "--shape", "x=2x5x8", "--shape", "z=2x5x8", "--threads", "1"]
    assert main(["tune", model, "-o", out, *options]) == 0
    assert Model.load(out).lineage[-1].params["shapes"] == ["x=2x5x8", "z=2x5x8"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "-o"),
        (["-o", "o.onnx", "--time", "soon"], "is not a duration"),
        (["-o", "o.onnx", "--shape", "x"], "is not a valid shape"),
        (["-o", "o.onnx", "--rules", "sum-befor-norm"], "sum-before-norm"),
    ],
)
def test_bad_input_is_reported_in_one_line(
    model: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", model, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_the_bench_compares_two_configurations_of_one_model() -> None:
    model = graphs.mlp()
    one, other = SessionConfig(threads=1), SessionConfig(threads=2, spinning=True)
    feeds = random_feeds(model)
    ratio = SessionClock().compare_configs(model, one, other, feeds, 1.5)
    assert ratio.low <= ratio.value <= ratio.high


@pytest.mark.slow
def test_the_bench_compares_two_models_until_it_is_decided() -> None:
    model = graphs.mlp()
    ratio = DecidingClock().compare(model, model, random_feeds(model), SessionConfig(), 1.5)
    assert ratio.low <= ratio.value <= ratio.high
