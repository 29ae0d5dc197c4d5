"""Modules that cannot be exported or compute other numbers: the message says where."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trimtab.core.errors import ExportError, ParityError
from trimtab.exporter import export
from trimtab.exporter.parity import difference


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # the line that the message shall name
            return x
        return -x


class Eigen(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x @ x.mT).real


class Holder(nn.Module):
    """Has a submodule with another name."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([part])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[0](self.first(x))


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.strip().startswith(text))


def refused(module: nn.Module, **options: Any) -> str:
    with pytest.raises(ExportError) as caught:
        export(module, torch.rand(2, 4), **options)
    return str(caught.value)


@pytest.mark.slow
def test_control_flow_that_depends_on_values_names_module_and_line() -> None:
    message = refused(Holder(Branch()))
    assert "module 'blocks.0' (Branch)" in message
    assert f"test_refusals.py line {line_of('if x.sum() > 0')} `if x.sum() > 0:" in message
    assert "torch.where" in message


@pytest.mark.slow
def test_an_operator_without_onnx_equivalent_names_module_and_line() -> None:
    message = refused(Holder(Eigen()))
    assert "operator aten.linalg_eig has no ONNX equivalent" in message
    assert "module 'blocks.0' (Eigen)" in message
    assert f"line {line_of('return torch.linalg.eigvals')} `return torch.linalg" in message


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 3)


def test_a_module_that_fails_by_itself_names_module_and_line() -> None:
    message = refused(Holder(Fails()))
    assert "the module fails on the example inputs" in message
    assert "module 'blocks.0' (Fails)" in message
    assert f"line {line_of('return x.reshape(-1, 3)')}" in message


class Words(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"x": x, "label": "seven"}


def test_an_output_that_is_not_a_tensor_is_named() -> None:
    assert "output 'label': it returns a str" in refused(Words())


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        return None


def test_a_module_that_returns_nothing_is_refused() -> None:
    assert "returns no tensor" in refused(Nothing())


class FixedWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


@pytest.mark.slow
def test_an_axis_that_the_module_fixes_is_named() -> None:
    message = refused(FixedWidth(), dynamic={"x": {0: "batch", 1: "width"}})
    assert "width" in message
    assert "--dynamic" in message


class Noise(nn.Module):
    """Draws random numbers: no two runs agree."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Counter(nn.Module):
    """Counts its calls in Python, which a graph cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 1

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def parity_error(module: nn.Module, **options: Any) -> str:
    with pytest.raises(ParityError) as caught:
        export(module, torch.rand(2, 4), dynamic={}, **options)
    return str(caught.value)


@pytest.mark.slow
def test_a_parity_error_names_the_output() -> None:
    message = parity_error(Noise(), output_names=["noisy"], name="my model")
    assert "my model: output 'noisy' differs by" in message
    assert "1e-04 is allowed" in message
    assert "locate=True" in message


@pytest.mark.slow
def test_the_first_node_that_differs_is_named_on_request() -> None:
    message = parity_error(Holder(Noise()), locate=True)
    assert "the first node that differs is 'blocks.0/rand_like' (RandomUniformLike)" in message


@pytest.mark.slow
def test_the_first_submodule_that_differs_is_named_where_the_capture_does() -> None:
    message = parity_error(Holder(Counter()), locate=True)
    assert "the first part that differs is module 'blocks.0' (Counter)" in message


@pytest.mark.slow
def test_parity_can_be_left_out() -> None:
    model = export(Noise(), torch.rand(2, 4), parity=False)
    assert "parity" not in model.lineage[0].notes


@pytest.mark.slow
def test_the_user_may_set_the_tolerance() -> None:
    model = export(Noise(), torch.rand(2, 4), tolerance=10.0)
    assert model.lineage[0].notes["parity"]["output"]["max_rel"] > 1e-4
    message = parity_error(Holder(nn.Softmax(-1)), tolerance=0.0)
    assert "0e+00 is allowed" in message


@pytest.mark.parametrize(
    ("expected", "got", "relative"),
    [
        ([1.0, -2.0], [1.0, -2.0], 0.0),
        ([1.0, -2.0], [1.5, -2.0], 0.25),
        ([0.0, 0.0], [0.0, 1e-7], 0.1),
        ([math.nan, 1.0], [math.nan, 1.0], 0.0),
        ([math.inf, 1.0], [math.inf, 1.0], 0.0),
        ([math.inf, 1.0], [-math.inf, 1.0], math.inf),
        ([1.0, 1.0], [math.nan, 1.0], math.inf),
        ([math.nan, 1.0], [1.0, 1.0], math.inf),
    ],
)
def test_the_error_is_relative_to_the_largest_magnitude(
    expected: list[float], got: list[float], relative: float
) -> None:
    found = difference(np.array(expected, np.float32), np.array(got, np.float32))
    assert found.relative == pytest.approx(relative)


def test_integers_and_shapes_must_be_equal() -> None:
    assert difference(np.array([1, 2]), np.array([1, 3])).relative == math.inf
    assert difference(np.array([True]), np.array([True])).relative == 0
    assert "has shape [1, 2], torch gives [2]" in str(difference(np.ones(2), np.ones((1, 2))))
