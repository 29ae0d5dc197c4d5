"""A small model and data on disk, for the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cnn_data import arrays
from graphs import cnn


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return cnn().save(tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", **arrays())
    return tmp_path / "data.npz"
