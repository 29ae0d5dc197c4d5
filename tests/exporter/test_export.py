"""Inputs, outputs, names and axes of exported models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from trimtab.core import model as model_file
from trimtab.core.errors import InputError, OptionError
from trimtab.core.model import Model
from trimtab.core.ort import session as session_file
from trimtab.core.ort.session import build_session, run
from trimtab.exporter import export
from trimtab.exporter import to_model as export_file


class Add(nn.Module):
    """Two inputs, one output."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
        return self.fc(x) * scale + y


class Embed(nn.Module):
    """Its output has the name that torch gives to a value inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.embedding(ids).sum(1)}

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.tensor([[1, 5, 9]]),)


def names(specs: Any) -> list[str]:
    return [spec.name for spec in specs]


def shapes(specs: Any) -> list[Any]:
    return [spec.shape for spec in specs]


def test_positional_and_keyword_inputs_are_named_after_forward() -> None:
    module = Add()
    model = export(module, (torch.randn(2, 4),), kwargs={"scale": 3.0, "y": torch.randn(2, 3)})
    assert names(model.inputs) == ["x", "y"]
    assert names(model.outputs) == ["output"]
    x, y = np.ones((5, 4), np.float32), np.ones((5, 3), np.float32)
    got = run(build_session(model), {"x": x, "y": y})["output"]
    expected = module(torch.from_numpy(x), torch.from_numpy(y), 3.0).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_mapping_is_keyword_arguments_in_any_order() -> None:
    model = export(Add(), {"y": torch.randn(2, 3), "x": torch.randn(2, 4)})
    assert names(model.inputs) == ["x", "y"]


class Point(NamedTuple):
    left: Tensor
    right: Tensor


@dataclass
class Result:
    total: Tensor
    parts: list[Tensor]
    missing: Tensor | None = None


class Nested(nn.Module):
    """Containers of every kind, in and out."""

    def forward(self, pair: tuple[Tensor, Tensor], *, named: dict[str, Any]) -> Result:
        point: Point = named["point"]
        return Result(pair[0] + pair[1] + point.left, [point.right * 2, named["more"][0] - pair[0]])


@pytest.mark.slow
def test_nested_inputs_and_outputs_are_named_by_keys_and_positions() -> None:
    def value(number: float) -> Tensor:
        return torch.full((2, 3), float(number))

    named = {"point": Point(value(3), value(4)), "more": [value(5)]}
    model = export(Nested(), ((value(1), value(2)),), kwargs={"named": named})
    assert names(model.inputs) == [
        "pair_0",
        "pair_1",
        "named_point_left",
        "named_point_right",
        "named_more_0",
    ]
    assert names(model.outputs) == ["total", "parts_0", "parts_1"]
    feeds = {n: np.full((1, 3), i, np.float32) for i, n in enumerate(names(model.inputs), 1)}
    got = run(build_session(model), feeds)
    assert [float(got[n][0, 0]) for n in names(model.outputs)] == [6, 8, 4]


@pytest.mark.slow
def test_names_given_by_the_user_replace_the_modules_own() -> None:
    model = export(
        Add(),
        (torch.randn(2, 4), torch.randn(2, 3)),
        input_names=["left", "right"],
        output_names=["sum"],
    )
    assert (names(model.inputs), names(model.outputs)) == (["left", "right"], ["sum"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_names": ["a"]}, "1 input names for 2 inputs.*x, y"),
        ({"output_names": ["a", "b"]}, "2 output names for 1 outputs"),
        ({"output_names": ["x"]}, "'x' is empty or taken"),
        ({"dynamic": {"z": {0: "batch"}}}, "no input 'z'.*x, y"),
        ({"dynamic": {"x": {2: "depth"}}}, "no axis 2"),
        ({"dynamic": {"x": {0: "n"}, "y": {1: "n"}}}, "'n' is 2 and 3"),
        ({"opset": 17}, "opset 17.*18 to"),
    ],
)
def test_names_axes_and_opsets_that_do_not_exist_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        export(Add(), (torch.randn(2, 4), torch.randn(2, 3)), **options)


def test_inputs_that_forward_does_not_take_are_refused() -> None:
    with pytest.raises(InputError, match="missing a required argument: 'y'"):
        export(Add(), torch.randn(2, 4))
    with pytest.raises(InputError, match="method example_inputs"):
        export(Add())


@pytest.mark.slow
def test_texts_describe_inputs_by_the_parameters_of_forward() -> None:
    model = export(Add(), ["y=2x3", "x=2x4:float32"])
    assert shapes(model.inputs) == [("batch", 4), ("batch", 3)]


@pytest.mark.slow
def test_texts_with_names_of_their_own_are_taken_in_order() -> None:
    assert names(export(Add(), ["left=1x4", "right=1x3"]).inputs) == ["left", "right"]


def test_a_misspelt_parameter_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no parameter 'yy'.*Did you mean 'y'"):
        export(Add(), ["x=1x4", "yy=1x3"])


@pytest.mark.slow
def test_the_type_of_an_input_comes_from_its_text() -> None:
    model = export(Embed(), "ids=1x7:int32")
    assert (model.inputs[0].dtype.name, model.inputs[0].shape) == ("INT32", ("batch", 7))


@pytest.mark.slow
def test_the_batch_is_dynamic_by_default_though_the_example_has_one_row() -> None:
    model = export(Embed())
    assert shapes(model.inputs) == [("batch", 3)]
    assert shapes(model.outputs) == [("batch", 4)]
    for batch in (1, 2, 7):
        got = run(build_session(model), {"ids": np.ones((batch, 3), np.int64)})
        assert got["embedding"].shape == (batch, 4)


@pytest.mark.slow
def test_an_output_named_like_an_inner_value_loads() -> None:
    """torch alone writes a file here that onnxruntime refuses: "Duplicate definition of name"."""
    model = export(Embed(), dynamic={"ids": {0: "batch", 1: "sequence"}})
    assert names(model.outputs) == ["embedding"]
    assert shapes(model.inputs) == [("batch", "sequence")]
    got = run(build_session(model), {"ids": np.ones((2, 5), np.int64)})
    assert got["embedding"].shape == (2, 4)


@pytest.mark.slow
def test_no_dynamic_axes_on_request() -> None:
    assert shapes(export(Embed(), dynamic={}).inputs) == [(1, 3)]


class Halves(nn.Module):
    """Works for an even number of rows only."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0] // 2, 2, 4).sum(1) if x.shape[0] % 2 == 0 else x / 0

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.ones(4, 4),)


@pytest.mark.slow
def test_a_batch_that_cannot_be_dynamic_stays_fixed_and_the_lineage_says_why() -> None:
    model = export(Halves())
    assert shapes(model.inputs) == [(4, 4)]
    assert model.lineage[0].notes["fixed_batch"]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


@pytest.mark.slow
def test_time_is_dynamic_in_recurrent_networks_whatever_was_exported_before() -> None:
    export(Recurrent(), torch.randn(2, 6, 3))
    model = export(Recurrent(), torch.randn(2, 6, 3), dynamic={"x": {0: "batch", 1: "time"}})
    assert shapes(model.outputs) == [("batch", "time", 5)]
    got = run(build_session(model), {"x": np.ones((3, 11, 3), np.float32)})
    assert got["output"].shape == (3, 11, 5)


class Through(nn.Module):
    """Outputs that are an input, a weight, and one value twice."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor, unused: Tensor) -> tuple[Tensor, ...]:
        y = x * self.weight
        return x, self.weight, y, y


@pytest.mark.slow
def test_outputs_that_are_inputs_weights_or_repetitions() -> None:
    model = export(Through(), (torch.randn(2, 4), torch.randn(2)))
    assert names(model.inputs) == ["x", "unused"]
    feeds = {"x": np.full((3, 4), 2, np.float32), "unused": np.zeros(3, np.float32)}
    got = run(build_session(model), feeds)
    assert [a.shape for a in got.values()] == [(3, 4), (4,), (3, 4), (3, 4)]


class Mixed(nn.Module):
    """Behaves differently while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.frozen = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.frozen(self.norm(x)))


@pytest.mark.slow
def test_training_flags_and_statistics_are_restored() -> None:
    module = Mixed().train()
    module.frozen.eval()
    flags = [m.training for m in module.modules()]
    mean = module.norm.running_mean.clone()
    example = torch.randn(2, 4)
    state = torch.random.get_rng_state()
    model = export(module, example)
    assert [m.training for m in module.modules()] == flags == [True, True, False, True]
    assert torch.equal(module.norm.running_mean, mean)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(node.op_type == "Dropout" for node in model.nodes())


def test_training_flags_are_restored_after_a_failure() -> None:
    module = Mixed().train()
    with pytest.raises(InputError):
        export(module)
    assert all(m.training for m in module.modules())


@pytest.mark.slow
def test_further_training_does_not_change_the_model() -> None:
    module = Add()
    model = export(module, ["x=1x4", "y=1x3"])
    before = model.digest
    with torch.no_grad():
        module.fc.weight.add_(1)
    assert model.digest == before


@pytest.mark.slow
def test_exporting_twice_gives_the_same_bytes_without_traces_of_the_machine() -> None:
    torch.manual_seed(1)
    module = Mixed()
    first, second = (export(module, torch.ones(2, 4)).to_bytes() for _ in range(2))
    assert first == second
    here = str(Path(__file__).parent).encode()
    assert here not in first
    assert b"stack_trace" not in first
    assert b"site-packages" not in first


@pytest.mark.slow
def test_nodes_and_weights_are_named_after_their_submodules() -> None:
    model = export(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 4))
    assert [node.name for node in model.nodes()] == ["0/linear", "1/relu"]
    assert set(model.graph.initializers) == {"0.weight", "0.bias"}


@pytest.mark.slow
def test_the_lineage_records_the_export_and_its_errors() -> None:
    model = export(Add(), ["x=1x4", "y=1x3"])
    (step,) = model.lineage
    assert step.pass_name == "export"
    assert step.params["opset"] == model.opset == 20
    assert step.params["torch"] == torch.__version__
    assert step.notes["parity"]["output"]["max_rel"] < 1e-6
    assert set(step.notes["parity"]["output"]) == {"max_abs", "max_rel"}


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 22])
def test_another_opset(opset: int) -> None:
    assert export(Add(), ["x=1x4", "y=1x3"], opset=opset).opset == opset


@pytest.mark.slow
def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    export(Embed())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_large_weights_go_to_a_separate_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of 2 GB is lowered; the path is the same."""
    for file in (model_file, session_file, export_file):
        monkeypatch.setattr(file, "EXTERNAL_DATA_BYTES", 1000)
    model = export(nn.Linear(64, 64), torch.randn(2, 64), name="large")
    path = model.save(tmp_path / "large.onnx")
    assert {p.name for p in tmp_path.iterdir()} == {"large.onnx", "large.onnx.data"}
    assert path.stat().st_size < 5000
    assert Model.load(path).digest == model.digest
    onnx.checker.check_model(str(path), full_check=True)
    assert run(build_session(path), {"input": np.ones((3, 64), np.float32)})["output"].shape == (
        3,
        64,
    )
