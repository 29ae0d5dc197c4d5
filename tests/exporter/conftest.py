"""Fixtures of the tests of the exporter."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry


@pytest.fixture(autouse=True, scope="session")
def _one_table_of_operators() -> Iterator[None]:
    """Read torch's table of ONNX operators once: it parses 500 sources anew for each export."""
    with pytest.MonkeyPatch.context() as patch:
        read = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
        patch.setattr(ONNXRegistry, "from_torchlib", read)
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Torch on one thread and from one seed: the machine is busy, and weights are random."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)
