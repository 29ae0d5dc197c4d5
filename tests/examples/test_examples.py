"""The worked examples on real pictures, small enough for every build."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"examples.{name}")


def top1(example: Any, name: str, options: str) -> dict[str, float]:
    """Return what an example prints, without measuring speed."""
    found: dict[str, float] = example(name).main([*options.split(), "--seconds", "0"])
    return found


def test_no_picture_is_in_both_parts(example: Any) -> None:
    pictures = example("pictures").digits(8)
    train = {a.tobytes() for batch in pictures.train for a in batch.feeds["input"]}
    test = {a.tobytes() for batch in pictures.test for a in batch.feeds["input"]}
    assert len(pictures.test) == 400
    assert not train & test


@pytest.mark.slow
def test_vgg16_pruned_by_norm_and_by_threshold_comes_back(example: Any, capsys: Any) -> None:
    options = "--width 0.125 --epochs 4 --finetune 1 --threshold 0.06"
    found = top1(example, "vgg16_prune", options)
    original, thin, thin_after, sparse, sparse_after = found.values()
    assert original > 0.6
    assert thin_after > thin + 0.2
    assert sparse_after > sparse + 0.2
    assert "400 pictures" in capsys.readouterr().out


@pytest.mark.slow
def test_mobilenet_v2_learns_to_be_rounded(example: Any, capsys: Any) -> None:
    options = "--width 0.25 --size 16 --batch 64 --epochs 3 --finetune 1"
    found = top1(example, "mobilenet_v2_quantize", options)
    assert found["mobilenet_v2"] > 0.5
    assert found["  trained through it"] > found["static, a scale a tensor"] - 0.03
    assert found["static, a scale a channel"] > found["mobilenet_v2"] - 0.03
    assert "static, a scale a tensor" in capsys.readouterr().out


@pytest.mark.slow
def test_students_learn_from_resnet50(example: Any, capsys: Any) -> None:
    options = "--width 0.125 --student 1 --batch 32 --epochs 3 --finetune 2 --size 16"
    found = top1(example, "resnet50_distill", options)
    teacher, untrained, *students = found.values()
    assert teacher > 0.3
    assert min(students) > untrained + 0.15
    assert "answers and features" in capsys.readouterr().out


@pytest.mark.slow
def test_training_of_a_pruned_network_is_one_table(example: Any, capsys: Any) -> None:
    ablation = example("recovery_ablation")
    found = ablation.main(["--seeds", "1", "--recover", "1", "--epochs", "4"])
    assert set(found) == set(ablation.variants())
    best = max(found.values())
    assert best > found[ablation.Variant(1e-3, "frozen", 0.0)]  # too slow for one epoch
    assert "learning rate  frozen  re-estimated  trained" in capsys.readouterr().out
