"""The engine as the last choice of a search: faster beyond doubt, and within what may be lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from trimtab.core.errors import OptionError
from trimtab.core.ort.engines import Engine
from trimtab.search import engines
from trimtab.search.engines import EngineChoice, choose_engine, read_engines, save_engine

OPENVINO = Engine.of("openvino")


def outcome() -> SimpleNamespace:
    target = SimpleNamespace(threads=1)
    original = SimpleNamespace(name="original", model="float", recipe=None)
    chosen = SimpleNamespace(name="int8", model="int8", recipe=SimpleNamespace(target=target))
    return SimpleNamespace(
        original=original, chosen=chosen, constraints=SimpleNamespace(max_drop=0.01)
    )


def compared(ratio: float, low: float) -> SimpleNamespace:
    return SimpleNamespace(ratio=ratio, low=low, error=None)


@pytest.mark.parametrize(
    ("low", "loss", "chosen"),
    [(2.2, 0.005, 2), (2.2, 0.02, None), (1.9, 0.0, None)],
    ids=["faster", "loses too much", "not beyond doubt"],
)
def test_an_engine_is_chosen_by_proof(monkeypatch, low, loss, chosen) -> None:
    # The original on OpenVINO, then the winner on the CPU and on OpenVINO.
    runs = [compared(0.8, 0.7), compared(2.0, 1.9), compared(2.4, low)]
    monkeypatch.setattr(engines, "compare", lambda *_, **__: runs)
    monkeypatch.setattr(engines, "_loss", lambda *_: loss)
    found = choose_engine(outcome(), [Engine.of("cpu"), OPENVINO], None, None)
    assert [(name, str(engine)) for name, engine in found.names] == [
        ("original", "openvino"),
        ("int8", "cpu"),
        ("int8", "openvino"),
    ]
    assert found.chosen == chosen
    assert found.lines(0.01)[-1].startswith("Engine: openvino" if chosen else "Engine: cpu")


def test_the_budgets_name_model_and_engine(tmp_path: Path) -> None:
    gate = {"model": "model.onnx", "baseline": "f.onnx", "budgets": {"drop": 0.001, "size": 1}}
    (tmp_path / "budgets.yaml").write_text(yaml.safe_dump(gate))
    choice = EngineChoice((compared(2.4, 2.1),), (("int8", OPENVINO),), (0.004,), 0)
    path = save_engine(outcome(), choice, tmp_path)
    written = yaml.safe_load(path.read_text())
    assert (written["provider"], written["baseline_provider"]) == ("openvino", "cpu")
    assert written["budgets"] == {"provider": OPENVINO.provider, "speedup": 2.0, "drop": 0.004}
    assert save_engine(outcome(), replace(choice, chosen=None), tmp_path) is None


def test_engines_are_names_of_what_is_installed() -> None:
    assert read_engines("cpu") == [Engine.of("cpu")]
    assert Engine.of("cpu") in read_engines("auto")
    with pytest.raises(OptionError, match="takes names alone"):
        read_engines("openvino:precision=bf16")
    with pytest.raises(OptionError, match="WebNN"):
        read_engines("cpu,webnn")
