"""Exports of trainable graphs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.exporter import export


class Small(nn.Module):
    """Convolution, BatchNorm, Dropout and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.conv(x)).mean((2, 3))))


def operators(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def images() -> tuple[Tensor]:
    return (torch.randn(2, 3, 6, 6),)


@pytest.mark.slow
def test_norms_and_dropout_stay_nodes() -> None:
    found = operators(export(Small(), images(), trainable=True))
    assert found["BatchNormalization"] == found["Dropout"] == 1
    assert not operators(export(Small(), images())).keys() & {"BatchNormalization", "Dropout"}


@pytest.mark.slow
def test_dropout_keeps_its_rate_and_is_the_identity_at_inference() -> None:
    model = export(Small(), images(), trainable=True)
    (node,) = [n for n in model.graph if n.op_type == "Dropout"]
    ratio = node.inputs[1]
    assert len(node.inputs) == 2
    assert ratio is not None
    assert ratio.const_value is not None
    np.testing.assert_allclose(ratio.const_value.numpy(), 0.3)
    feeds = {"x": np.ones((1, 3, 6, 6), np.float32)}
    session = build_session(model)
    np.testing.assert_array_equal(run(session, feeds)["output"], run(session, feeds)["output"])


@pytest.mark.slow
def test_it_computes_what_torch_does_with_any_batch() -> None:
    model = export(Small(), images(), trainable=True)
    assert model.inputs[0].shape == ("batch", 3, 6, 6)
    assert model.lineage[-1].notes["parity"]["output"]["max_rel"] < 1e-4


@pytest.mark.slow
def test_weights_that_are_equal_before_training_are_not_merged() -> None:
    """A new norm has a scale of ones like its variance, and a shift of zeros like its mean."""
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    )
    model = export(module, images(), trainable=True)
    norms = [n for n in model.graph if n.op_type == "BatchNormalization"]
    assert len(norms) == 2
    assert len({value for node in norms for value in node.inputs[1:]}) == 8


@pytest.mark.slow
def test_training_flags_of_the_module_are_restored() -> None:
    module = Small().train()
    module.norm.eval()
    export(module, images(), trainable=True)
    assert module.training
    assert module.drop.training
    assert not module.norm.training
