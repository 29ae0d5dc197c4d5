"""Whole models in torch against onnxruntime, and back into the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
import torch
from shared_data import shared
from torch_cases import agrees, floats

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes import QuantizeStatic, Simplify
from trimtab.passes.base import relative_error
from trimtab.passes.training.torch_graph import to_module, write_back

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


pytestmark = pytest.mark.usefixtures("one_thread")


def captured(network: torch.nn.Module, inputs: dict[str, torch.Tensor], opset: int) -> Model:
    program = torch.onnx.export(
        network.eval(), (), kwargs=inputs, dynamo=True, opset_version=opset, verbose=False
    )
    return Model.from_proto(program.model_proto, type(network).__name__)


def quantized(model: Model, **fields: Any) -> Model:
    runs = [random_feeds(model, seed=s, batch=4) for s in range(4)]
    feeds = {n: np.concatenate([r[n] for r in runs]) for n in runs[0]}
    ctx = Context(target=Target.named("x64-avx512-vnni"), data=Dataset.of_arrays(feeds))
    return QuantizeStatic(**fields)(Simplify()(model, ctx), ctx)


@pytest.mark.parametrize("name", ["cnn", "mlp", "transformer"])
def test_small_graphs(name: str) -> None:
    model = getattr(graphs, name)()
    feeds = random_feeds(model, batch=3)
    agrees(model, feeds if name != "mlp" else random_feeds(model))


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_trained_networks(name: str) -> None:
    model = Model.load(shared(f"data/{name}.onnx"))
    agrees(model, random_feeds(model, batch=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["densenet121", "inception_v1", "inception_v2", "shufflenet", "squeezenet", "zfnet512"]
)
def test_light_networks(name: str) -> None:
    model = Model.load(LIGHT / f"light_{name}.onnx")
    agrees(model, random_feeds(model))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2_cifar", "text_encoder"])
def test_networks_of_this_package(name: str, exported: Callable[[str], Model]) -> None:
    model = exported(name)
    agrees(model, random_feeds(model, batch=2))


def transformer(name: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 64}
    image = {"pixel_values": torch.randn(2, 3, 32, 32)}
    if name == "bert":
        config = transformers.BertConfig(vocab_size=100, max_position_embeddings=32, **small)
        ids = torch.randint(0, 100, (2, 8))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return transformers.BertModel(config), inputs
    if name == "vit":
        return transformers.ViTModel(
            transformers.ViTConfig(image_size=32, patch_size=8, **small)
        ), image
    if name == "convnext":
        sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
        return transformers.ConvNextModel(transformers.ConvNextConfig(**sizes)), image
    config = transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.35)
    return transformers.MobileNetV2Model(config), image


class Plain(torch.nn.Module):
    """The last hidden state alone: the exporter keeps no dictionaries."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.network(**inputs).last_hidden_state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "opset"), [("bert", 23), ("vit", 18), ("convnext", 23), ("mobilenet_v2", 18)]
)
def test_networks_of_transformers(name: str, opset: int) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    network, inputs = transformer(name)
    model = captured(Plain(network), inputs, opset)
    feeds = {n: t.numpy() for n, t in inputs.items()}
    agrees(model, feeds)
    assert len(to_module(model).named_weights("kernel")) >= 10


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_untrained_weights_go_back_as_they_were(name: str) -> None:
    model = getattr(graphs, name)()
    assert write_back(model, to_module(model)).digest == model.digest


def test_parameters_are_the_initializers_by_name() -> None:
    weights = to_module(graphs.cnn()).weights
    assert {n for n, w in weights.items() if w.role == "kernel"} == {"w0", "w1", "w2", "w3"}
    assert {n for n, w in weights.items() if w.role == "vector"} == {"scale", "shift", "b1", "b3"}
    assert {n for n, w in weights.items() if w.role == "statistic"} == {"mean", "var"}


def test_constants_of_the_algorithm_are_not_weights() -> None:
    assert not {"scale", "root", "one", "half"} & set(to_module(graphs.transformer()).weights)


def test_trained_weights_come_back_into_the_same_graph() -> None:
    model = graphs.cnn()
    module = to_module(model)
    x = {"x": floats(4, 3, 8, 8)}
    with torch.no_grad():
        for tensor in module.named_weights("kernel", "vector").values():
            tensor.add_(0.1)
        expected = module.run({"x": torch.from_numpy(x["x"])})["y"].numpy()
    after = write_back(model, module)
    assert relative_error(expected, run(build_session(after), x)["y"]) < 1e-5
    assert graphs.ops(after) == graphs.ops(model)
    assert model.digest == graphs.cnn().digest


def test_tied_weights_are_one_parameter() -> None:
    model = graphs.model_of("""(float[n,4] x) => (float[n,4] y) <float[4,4] w> {
        a = MatMul (x, w)
        t = Transpose (w)
        y = MatMul (a, t)
    }""")
    module = to_module(model)
    module(torch.ones(2, 4)).sum().backward()
    assert list(dict(module.named_parameters())) == ["weight:w"]
    assert write_back(model, module).graph.initializers["w"].const_value is not None


def test_gradients_are_those_of_the_same_network_in_torch() -> None:
    model = graphs.model_of("""(float[n,3,6,6] x) => (float[n,2] y)
        <float[4,3,3,3] w, float[4] b, float[2,4] v> {
            c = Conv <pads=[1,1,1,1]> (x, w, b)
            r = Relu (c)
            p = GlobalAveragePool (r)
            f = Flatten (p)
            y = Gemm <transB=1> (f, v)
        }""")
    module = to_module(model)
    x = torch.from_numpy(floats(2, 3, 6, 6))
    module(x).square().sum().backward()
    own = {n: module.weight(n).detach().clone().requires_grad_() for n in ("w", "b", "v")}
    hidden = torch.relu(torch.conv2d(x, own["w"], own["b"], padding=1)).mean((2, 3))
    (hidden @ own["v"].t()).square().sum().backward()
    for name, tensor in own.items():
        torch.testing.assert_close(module.weight(name).grad, tensor.grad)


@pytest.mark.parametrize("fields", [{}, {"per_channel": False}, {"activation": "int8"}])
def test_quantized_graphs_run_and_go_back_bit_for_bit(fields: dict[str, Any]) -> None:
    model = quantized(graphs.cnn(), **fields)
    module = to_module(model)
    feeds = random_feeds(model, batch=3)
    exact = SessionConfig.for_evaluation(Target.named("x64-avx512-vnni"))
    expected = run(build_session(model, exact), feeds)["y"]
    with torch.no_grad():
        got = module.run({n: torch.from_numpy(a) for n, a in feeds.items()})["y"].numpy()
    assert relative_error(expected, got) < 0.02  # a rounding that falls the other way
    after = write_back(model, module)
    old, new = graphs.weights_of(model), graphs.weights_of(after)
    for name, array in old.items():
        np.testing.assert_allclose(new[name], array, rtol=1e-6, err_msg=name)


def test_steps_and_rounded_weights_have_gradients() -> None:
    module = to_module(quantized(graphs.cnn()))
    module(torch.from_numpy(floats(4, 3, 8, 8))).square().sum().backward()
    for name, tensor in module.named_weights("kernel", "step").items():
        assert tensor.grad is not None, name
        assert tensor.grad.abs().sum() > 0, name


def test_the_step_gradient_is_that_of_the_paper() -> None:
    """Esser et al. 2020, equation 3, weighed by 1 / sqrt(N Q)."""
    model = graphs.model_of("""(float[n,3] x) => (float[n,3] y)
        <float s = {0.5}, uint8 z = {128}> {
            q = QuantizeLinear (x, s, z)
            y = DequantizeLinear (q, s, z)
        }""")
    module = to_module(model)
    x = torch.tensor([[0.6, 0.9, 1000.0]])
    module(x).sum().backward()
    inside = sum(round(v / 0.5) - v / 0.5 for v in (0.6, 0.9))
    expected = (inside + (255 - 128)) / (3 * 255) ** 0.5
    assert module.weight("s").grad.item() == pytest.approx(expected, rel=1e-4)


def test_intermediate_outputs_are_returned() -> None:
    module = to_module(graphs.cnn(), intermediate=["r0"])
    made = module.run({"x": torch.ones(1, 3, 8, 8)})
    assert made["r0"].shape == (1, 8, 8, 8)
    with pytest.raises(OptionError, match="r0"):
        to_module(graphs.cnn(), intermediate=["r0x"])


def test_moves_to_half_precision() -> None:
    module = to_module(graphs.cnn()).to(torch.bfloat16)
    assert module(torch.ones(1, 3, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
