"""`trimtab bench`: what it prints, writes and refuses."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pytest
from graphs import model_of

from trimtab.cli import main
from trimtab.commands.bench import configure
from trimtab.commands.bench_request import BenchRequest
from trimtab.core.errors import RunError
from trimtab.core.progress import Silent
from trimtab.runtime_bench.bench.bench import LocalBench
from trimtab.runtime_bench.measure.values import Comparison, Measurement, load

QUICK = ["--threads", "1", "--in-process", "--max-time", "0.3s"]


@pytest.fixture
def relu(tmp_path: Path) -> str:
    model = model_of("(float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    return str(model.save(tmp_path / "relu.onnx"))


@pytest.fixture
def dynamic(tmp_path: Path) -> str:
    model = model_of("(float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    return str(model.save(tmp_path / "dynamic.onnx"))


def test_it_compares_and_writes_every_sample(relu, tmp_path, capsys) -> None:
    assert main(["bench", relu, relu, *QUICK, "--json", str(tmp_path / "b.json")]) == 0
    assert "relu.onnx" in capsys.readouterr().out
    (run,) = load(tmp_path / "b.json")["runs"]
    (found,) = [Comparison.from_json(c) for c in run["comparisons"]]
    assert len(found.candidate.samples_ns) > 0
    assert found.candidate.config.threads == 1


def test_one_model_is_measured_alone(relu, tmp_path, capsys) -> None:
    assert main(["bench", relu, *QUICK, "--json", str(tmp_path / "b.json")]) == 0
    (run,) = load(tmp_path / "b.json")["runs"]
    assert Measurement.from_json(run["measurements"][0]).model == relu
    assert "verdict" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_measures_each_combination(dynamic, tmp_path, capsys) -> None:
    sweep = ["--batch", "1,4", "--threads", "1,2", "--json", str(tmp_path / "b.json")]
    assert main(["bench", dynamic, *QUICK, *sweep]) == 0
    runs = load(tmp_path / "b.json")["runs"]
    assert [(r["threads"], r["batch"]) for r in runs] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert runs[1]["measurements"][0]["inputs"] == {"x": "4x3 float32"}
    out = capsys.readouterr().out
    assert "threads 2, batch 4" in out
    assert "most rows a second:" in out
    assert main(["bench", dynamic, *QUICK[2:], "--threads", "each", "--dry-run"]) == 0


def test_data_are_fed(dynamic, tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((10, 3), "f"))
    out = str(tmp_path / "b.json")
    data = ["--data", str(tmp_path / "d.npz"), "--batch", "5"]
    assert main(["bench", dynamic, *QUICK, *data, "--json", out]) == 0
    assert load(Path(out))["runs"][0]["measurements"][0]["inputs"] == {"x": "5x3 float32"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--aa"], "--aa"),
        (["--threads", "none"], "--threads: 'none'"),
        (["--threads", "0"], "--threads: '0'"),
        (["--max-time", "soon"], "'soon' is not a duration"),
        (["--alpha", "2"], "alpha"),
        (["--shape", "z=1x3"], "no input 'z'"),
        (["--provider", "CUDAExecutionProvide"], "CUDAExecutionProvide"),
        (["--provider", "TensorrtExecutionProvider"], "pip install tensorrt"),
        (["--provider", "CUDAExecutionProvider", "--cuda-graph"], "onnxruntime-gpu"),
        (["--cuda-graph"], "Give --provider CUDAExecutionProvider"),
        (["--concurrency", "2"], "--concurrency"),
        (["--json", "/proc/none/b.json"], "cannot be written"),
        (["{missing}"], "no such file"),
        (["{dynamic_rank}"], "takes"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(relu, tmp_path, capsys, arguments, says) -> None:
    other = model_of("(float[2,3,1] x) => (float[2,3,1] y) { y = Relu(x) }")
    names = {
        "relu": relu,
        "missing": str(tmp_path / "none.onnx"),
        "dynamic_rank": str(other.save(tmp_path / "other.onnx")),
    }
    given = [a.format(**names) for a in arguments]
    models = [relu, *([relu] if given[0].startswith("--") else [given.pop()])]
    assert main(["bench", *models, *QUICK, *given]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_a_free_batch_is_one_row_and_another_free_axis_asks_and_suggests(
    dynamic, tmp_path, capsys
) -> None:
    assert main(["bench", dynamic, *QUICK]) == 0
    free = model_of("(float[N,3,L] x) => (float[N,3,L] y) { y = Relu(x) }")
    assert main(["bench", str(free.save(tmp_path / "free.onnx")), *QUICK]) == 2
    assert "--shape x=1x3x" in capsys.readouterr().err


@pytest.mark.slow
def test_workers_startup_costs_and_throughput(relu, tmp_path, capsys) -> None:
    options = ["--threads", "1", "--max-time", "16s", "--json", str(tmp_path / "b.json")]
    assert main(["bench", relu, relu, *options, "--concurrency", "2"]) == 0
    out = capsys.readouterr().out
    assert "inferences/s" in out
    assert "peak memory" in out
    cards = load(tmp_path / "b.json")["cards"]
    assert all(1 <= len(c["load_ns"]) <= 3 for c in cards)  # as many as fit into the time
    assert len(cards) == 2


@pytest.mark.slow
def test_a_base_against_itself_comes_out_same(relu, monkeypatch) -> None:
    # The verdict of real time is not asserted, only the exit code's meaning.
    from dataclasses import replace

    from trimtab.runtime_bench.bench import bench as module

    real = module.compare
    for verdict, code in [("same", 0), ("better", 1), ("inconclusive", 3)]:
        monkeypatch.setattr(
            module,
            "compare",
            lambda *a, verdict=verdict, **k: [replace(c, verdict=verdict) for c in real(*a, **k)],
        )
        assert main(["bench", relu, "--aa", *QUICK]) == code


@pytest.mark.parametrize(("imported", "fits"), [(0.1, True), (1.0, True), (2.5, False)])
def test_a_limit_is_refused_only_where_starting_exceeds_what_it_may_end_late(
    imported: float, fits: bool, relu: str
) -> None:
    """A limit of 2 s may end 2 s late; a process takes up to twice as long as these imports."""
    parser = argparse.ArgumentParser()
    configure(parser)
    args = parser.parse_args([relu, relu, "--max-time", "2s"])
    request = BenchRequest(args, Silent(), imported)
    if fits:
        request.begin(LocalBench(), time.monotonic() - imported)
        return
    with pytest.raises(RunError, match=r"nothing can be measured within 2 s"):
        request.begin(LocalBench(), time.monotonic() - imported)
