"""`trimtab optimize` as a command: the plan alone, the folder, the exit code."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import graphs
import numpy as np
import pytest
from cnn_data import arrays
from search_fakes import LOOSE, fast_int8

from trimtab.cli import main
from trimtab.search.optimize import optimize, save_outcome


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "data.npz", **arrays(120))
    model = graphs.cnn().save(tmp_path / "float.onnx")
    return [str(model), "--data", str(tmp_path / "data.npz"), "-o", str(tmp_path / "out")]


def test_a_dry_run_shows_the_plan_and_makes_nothing(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimize", *files, "--dry-run", "--train", "5m"]) == 0
    shown = capsys.readouterr().out
    for wanted in (
        "int8 static",
        "pruned to 70%",
        "strength of pruning",
        "confirm",
        "nothing was made",
    ):
        assert wanted in shown
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


def test_a_dry_run_tells_the_engines_and_their_time(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trimtab.search.steps.engines.check_installed", lambda *_: None)
    seconds = {}
    for providers in ("cpu", "cpu,openvino", "cpu,openvino,cuda"):
        assert main(["optimize", *files, "--dry-run", "--provider", providers]) == 0
        shown = capsys.readouterr().out
        beyond = providers.split(",")[1:]
        for engine in beyond:
            assert f"the best on {engine}" in shown.partition("Will try")[2].partition("\n")[0]
            for name in ("float", "the best", "the next best", "form of"):
                assert re.search(rf"^engines +.*{name}.* on {engine} ", shown, re.M)
        assert len(re.findall("^engines", shown, re.M)) == 4 * len(beyond)
        seconds[len(beyond)] = float(re.search(r"about (\d+) to", shown)[1])  # type: ignore[index]
    assert seconds[0] < seconds[1] < seconds[2]


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_ends_with_exit_code_1_and_the_floor(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["--max-size", "10", "--max-drop", "1", "--passes", "simplify,quantize-static"]
    assert main(["optimize", *files, *limits]) == 1
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    assert document["chosen"] is None
    assert "max_size by" in " ".join(document["why"])
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert (tmp_path / "cache").exists()
    assert "no candidate satisfies" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="needs mlflow")
def test_mlflow_gets_constraints_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from trimtab.search.reporting.mlflow_log import log_outcome

    outcome = optimize(
        graphs.cnn(), arrays(60), constraints=LOOSE, measure=fast_int8, passes=("simplify",)
    )
    save_outcome(outcome, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    log_outcome(outcome, tmp_path / "out")
    (run,) = mlflow.search_runs(output_format="list")
    assert run.data.params["max_drop"] == "1.0"
    assert run.data.metrics["size_bytes"] == outcome.chosen.size_bytes  # type: ignore[union-attr]


def test_without_mlflow_the_option_says_what_to_install(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main(["optimize", *files, "--mlflow"]) == 2
    assert "pip install mlflow-skinny" in capsys.readouterr().err
