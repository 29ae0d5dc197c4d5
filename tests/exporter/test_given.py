"""Modules as users hand them over: wrapped, compiled, captured, in other types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trimtab.core.errors import ExportError, InputError, ParityError
from trimtab.core.ort.session import build_session, run
from trimtab.exporter import export


class Line(nn.Module):
    """One layer whose input is called x."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrappers_do_not_hide_the_names_of_inputs(wrap: Any) -> None:
    model = export(wrap(Line()), torch.randn(2, 4), parity=False)
    assert [spec.name for spec in model.inputs] == ["x"]


@pytest.mark.slow
def test_an_exported_program_is_exported_on_its_own_example() -> None:
    module, x = Line().eval(), torch.randn(2, 4)
    model = export(torch.export.export(module, (x,)))
    got = run(build_session(model), {model.inputs[0].name: x.numpy()})["output"]
    np.testing.assert_allclose(got, module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Line, "Make an instance"),
        (torch.relu, "whose forward calls it"),
        (Line().state_dict(), "the module that has the code"),
        (torch.jit.trace(Line(), torch.randn(2, 4)), "TorchScript"),
    ],
)
def test_what_has_no_code_to_read_is_refused_at_once(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        export(given, torch.randn(2, 4))


def test_a_scripted_part_is_named() -> None:
    module = nn.Sequential(nn.ReLU(), torch.jit.script(nn.Linear(4, 2)))
    with pytest.raises(InputError, match="module '1'"):
        export(module, torch.randn(2, 4))


def test_integer_weights_of_torch_are_refused() -> None:
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(InputError, match=r"no ONNX equivalent.*Export the float module"):
        export(quantized, torch.randn(2, 4))


def test_bfloat16_is_refused_before_the_export() -> None:
    with pytest.raises(ExportError, match=r"input 'x' is bfloat16.*module\.float\(\)"):
        export(Line().bfloat16(), torch.randn(2, 4).bfloat16())
    with pytest.raises(ExportError, match=r"weights are bfloat16.*module\.float\(\)"):
        export(Line().bfloat16(), torch.randn(2, 4))


@pytest.mark.slow
def test_float64_that_onnxruntime_cannot_run_advises_float() -> None:
    module = nn.Conv2d(1, 2, 3).double()
    with pytest.raises(ParityError, match=r"weights are float64.*module\.float\(\)") as caught:
        export(module, torch.randn(1, 1, 5, 5, dtype=torch.float64), dynamic={})
    assert "bfloat16" not in str(caught.value)


class Changing(nn.Module):
    """Counts its calls, in a buffer and an attribute."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += 1
        return x * 2


@pytest.mark.slow
def test_what_forward_changes_is_restored_and_told() -> None:
    module = Changing()
    buffer = module.calls
    model = export(module, torch.randn(2, 4))
    assert module.calls is buffer
    assert (buffer.item(), module.seen, module.training) == (0, 0, True)
    assert model.lineage[0].notes["changed_buffers"] == ["calls"]


class Doubled(torch.autograd.Function):
    """A Function with the `symbolic` of torch's former exporter."""

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my.domain::Doubled", x)

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x * 2


class Uses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = Doubled.apply(x)  # type: ignore[no-untyped-call]
        return result


@pytest.mark.slow
def test_a_symbolic_that_is_not_called_is_told() -> None:
    model = export(Uses(), torch.randn(2, 4))
    assert model.lineage[0].notes["symbolic_ignored"] == ["Doubled"]


class Pool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x)).flatten(1)


@pytest.mark.slow
def test_channels_last_gives_the_graph_of_the_default_layout() -> None:
    module, x = Pool().eval(), torch.randn(2, 3, 8, 8)
    plain = [node.op_type for node in export(module, x).ir.graph]
    last = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = export(last, x.contiguous(memory_format=torch.channels_last))
    assert [node.op_type for node in model.ir.graph] == plain
    assert last.conv.weight.is_contiguous(memory_format=torch.channels_last)


class Rounded(nn.Module):
    """Fake quantizers: one scale, one for each channel, and fewer integers than int8 has."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, 0.05, 3, 0, 255)
        scale = torch.tensor([0.05, 0.1, 0.2, 0.4])
        zero = torch.zeros(4, dtype=torch.int32)
        x = torch.fake_quantize_per_channel_affine(x, scale, zero, 1, -127, 127)
        return torch.fake_quantize_per_tensor_affine(x, 0.25, 0, -8, 7)


@pytest.mark.slow
def test_fake_quantizers_become_pairs_and_keep_a_free_batch() -> None:
    module = Rounded()
    model = export(module, torch.randn(2, 4) * 3)
    ops = [node.op_type for node in model.ir.graph]
    assert ops.count("QuantizeLinear") == ops.count("DequantizeLinear") == 3
    assert model.inputs[0].shape[0] == "batch"
    x = (torch.randn(7, 4) * 5).numpy()
    got = run(build_session(model), {"x": x})["output"]
    np.testing.assert_allclose(got, module(torch.from_numpy(x)).numpy(), atol=1e-6)


@pytest.mark.slow
def test_modules_of_fake_quantizers_round_by_the_scales_that_they_have() -> None:
    from torch.ao.quantization import FakeQuantize

    quantizer = FakeQuantize()
    quantizer(torch.linspace(-1, 3, 50))
    scale = quantizer.scale.clone()
    model = export(quantizer, torch.randn(2, 4))
    assert torch.equal(quantizer.scale, scale)
    assert "QuantizeLinear" in [node.op_type for node in model.ir.graph]
