"""Rows that are alike: told in one line where data are read, and no more is read than decides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest

from trimtab.cli import main
from trimtab.core.alike import LOOKED_AT, alike
from trimtab.core.dataset import Dataset

RNG = np.random.default_rng(0)
ROW = RNG.normal(size=(1, 3, 8, 8)).astype(np.float32)
CONSTANT = np.full((6, 3, 8, 8), np.arange(6).reshape(6, 1, 1, 1), np.float32)


@pytest.mark.parametrize(
    ("feeds", "told"),
    [
        ({"x": np.repeat(ROW, 6, 0)}, "all 6 rows are the same"),
        ({"x": np.repeat(ROW, 999, 0)}, f"all {LOOKED_AT} rows looked at are the same"),
        ({"x": np.zeros((6, 3, 8, 8), np.float32)}, "one value throughout and all are the same"),
        ({"x": CONSTANT}, "every row has one value throughout:"),
        ({"ids": np.ones((4, 5), np.int64), "mask": np.ones((4, 5), np.int64)}, "all are the same"),
        ({"text": np.array([["a"], ["a"]])}, "all 2 rows are the same"),
    ],
)
def test_alike_rows_are_told(feeds: dict[str, Any], told: str) -> None:
    said = alike(Dataset.of(feeds))
    assert told in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "feeds",
    [
        {"x": RNG.normal(size=(6, 3, 8, 8))},
        {"x": np.concatenate([np.repeat(ROW, 5, 0), ROW + 1])},
        {"x": ROW},  # of one row nobody can tell
        {"x": np.arange(6.0).reshape(6, 1)},  # rows of one number
        {"ids": np.arange(20).reshape(4, 5), "mask": np.ones((4, 5), np.int64)},
    ],
)
def test_rows_that_differ_are_not(feeds: dict[str, Any]) -> None:
    assert alike(Dataset.of(feeds)) == ""


def test_no_more_is_read_than_decides() -> None:
    read = []

    def batches() -> Iterator[dict[str, Any]]:
        for number in range(100):
            read.append(number)
            yield {"x": ROW + number}

    data = Dataset.of_batches(batches)
    len(data)  # which counts them
    read.clear()
    assert alike(data) == ""
    assert len(read) <= 3


@pytest.mark.parametrize(
    "command",
    [
        ["quantize", "-o", "OUT"],
        ["quantize", "-o", "OUT", "--mode", "static"],
        ["prune", "-o", "OUT", "--sparsity", "0.5"],
        ["eval", "--reference", "MODEL"],
        ["optimize", "-o", "FOLDER", "--dry-run"],
        ["bench", "--max-time", "1s", "--in-process", "--no-card"],
    ],
)
def test_every_command_that_judges_by_data_warns_once(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(graphs.mlp().save(tmp_path / "m.onnx"))
    [spec] = graphs.mlp().inputs
    size = [n if isinstance(n, int) else 1 for n in spec.shape or ()][1:]
    np.savez(tmp_path / "d.npz", **{spec.name: np.ones((40, *size), np.float32)})
    name, *rest = command
    places = {"MODEL": model, "OUT": str(tmp_path / "o.onnx"), "FOLDER": str(tmp_path / "out")}
    options = [places.get(word, word) for word in rest]
    assert main([name, model, "--data", str(tmp_path / "d.npz"), *options]) == 0
    printed = capsys.readouterr()
    warned = [t for t in (printed.out + printed.err).splitlines() if "arning: " in t]
    told = [t for t in warned if "d.npz: every row has one value" in t]
    assert len(told) == (name != "bench")  # times are those of any rows
