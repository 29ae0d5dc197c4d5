"""The example of a metric for each task: it runs, and tells a good model from a bad one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab import Metric, evaluate
from trimtab.cli import main
from trimtab.core.model import Model

ROOT = Path(__file__).resolve().parents[2]
METRICS = {
    "classification": "COST",
    "detection": "FOUND",
    "segmentation": "DICE",
    "ocr": "AMOUNT",
    "stream": "DELAY",
    "embeddings": "NEAREST",
}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"examples.metrics.{name}")


@pytest.mark.parametrize("task", METRICS)
def test_metric_of_each_task_runs_and_tells_a_broken_model(task: str, example: Any) -> None:
    module = example(task)
    metric: Metric = getattr(module, METRICS[task])
    found = module.main()
    model, data, _ = module.example()
    broken = evaluate(without_weights(model), data, metric)
    assert broken.drop_from(evaluate(model, data, metric))[0] > 0.1
    assert abs(found["float"] - found["int8"]) < 0.05


def without_weights(model: Model) -> Model:
    """Return the model with its first weights 0."""
    made = model.to_proto()
    weights = made.graph.initializer[0]
    weights.raw_data = bytes(len(weights.raw_data))
    return Model.from_proto(made)


def test_metric_of_a_checkout_is_named_on_the_command_line(
    example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, _ = example("segmentation").example()
    path, rows = model.save(tmp_path / "m.onnx"), next(iter(data.sized(100)))
    np.savez(tmp_path / "d.npz", labels=rows.labels, **rows.feeds)
    metric = "examples.metrics.segmentation:DICE"
    assert main(["eval", str(path), "--data", str(tmp_path / "d.npz"), "--metric", metric]) == 0
    assert "dice 0.96" in capsys.readouterr().out
