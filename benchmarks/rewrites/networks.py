"""Networks that rewrites are measured on, float and int8, by name.

Trained ones come from the shared data, MiniLM from its package; the rest have random weights of a
fixed seed: the gain of a rewrite depends on operators and shapes, not on what was learned.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common.data import cifar, minilm, network

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.metric import evaluate
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes.quantization.static import QuantizeStatic
from trimtab.passes.simplify.simplify import Simplify

if TYPE_CHECKING:
    from torch import nn

#: Networks that were trained on CIFAR-10.
CIFAR = ("resnet20", "resnet56", "mobilenet_v2")


def exported(make: Callable[[], nn.Module], inputs: Mapping[str, Any], name: str) -> Model:
    """A module with random weights, its batch dynamic."""
    import torch

    from trimtab.exporter import export

    torch.manual_seed(0)
    module = make().eval()
    dynamic = {key: {0: "batch"} for key in inputs}
    return export(module, dict(inputs), dynamic=dynamic, parity=False, name=name)


def of_registry(name: str) -> Model:
    """A row of `models.NETWORKS`."""
    import torch

    from trimtab.models import NETWORKS

    image = torch.zeros(2, 3, 224, 224)
    made = NETWORKS[name].inputs[0].name
    return exported(NETWORKS[name].build, {made: image}, name)


def unet() -> Model:
    """U-Net (Ronneberger et al. 2015) of three levels, 16 to 128 channels, at 128 x 128."""
    import torch
    from torch import nn

    def block(ins: int, outs: int) -> nn.Module:
        parts: list[nn.Module] = []
        for width in (ins, outs):
            parts += [nn.Conv2d(width, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU()]
        return nn.Sequential(*parts)

    class UNet(nn.Module):
        """Contracting and expanding path, nearest upsampling, skips concatenated."""

        def __init__(self) -> None:
            super().__init__()
            widths = (16, 32, 64, 128)
            self.down = nn.ModuleList(
                block(a, b) for a, b in zip((3, *widths), widths, strict=False)
            )
            self.up = nn.ModuleList(block(a + b, a) for a, b in itertools.pairwise(widths))
            self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2.0, mode="nearest")
            self.head = nn.Conv2d(widths[0], 2, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            """(N, 3, 128, 128) -> (N, 2, 128, 128)."""
            skips = [self.down[0](image)]
            for step in list(self.down)[1:]:
                skips.append(step(self.pool(skips[-1])))
            value = skips.pop()
            for step in reversed(list(self.up)):
                value = step(torch.cat([skips.pop(), self.grow(value)], dim=1))
            return self.head(value)

    return exported(UNet, {"image": torch.zeros(2, 3, 128, 128)}, "unet")


def transformer(name: str) -> Model:
    """A network of transformers with its own defaults, a fourth as deep, random weights."""
    import torch
    import transformers as t

    pixels = {"pixel_values": torch.zeros(2, 3, 224, 224)}
    ids = torch.zeros(2, 128, dtype=torch.int64)
    tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    makers: dict[str, tuple[Callable[[], nn.Module], Mapping[str, Any]]] = {
        "vit": (lambda: t.ViTModel(t.ViTConfig(num_hidden_layers=3)), pixels),
        "convnext": (lambda: t.ConvNextModel(t.ConvNextConfig()), pixels),
        "swin": (lambda: t.SwinModel(t.SwinConfig()), pixels),
        "bert": (lambda: t.BertModel(t.BertConfig(num_hidden_layers=3)), tokens),
    }
    make, inputs = makers[name]
    return exported(make, inputs, name)


NETWORKS: Mapping[str, Callable[[], Model]] = {
    "minilm": minilm,
    **{name: partial(network, name) for name in CIFAR},
    "vgg16": partial(of_registry, "vgg16"),
    "resnet50": partial(of_registry, "resnet50"),
    "unet": unet,
    **{name: partial(transformer, name) for name in ("vit", "convnext", "bert", "swin")},
}


def dynamic_int8(model: Model, target: Target) -> Model:  # noqa: ARG001 - one signature for all
    """Quantize a model with onnxruntime's own dynamic quantization, its defaults but the weights'.

    Its default weights are uint8; int8 ones are what its documentation advises for x64.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        model.save(source)
        quantize_dynamic(source, out, weight_type=QuantType.QInt8)
        return Model.from_proto(Model.load(out).to_proto(), f"{model.name} int8")


def static_int8(model: Model, target: Target) -> Model:
    """Static int8 with ranges from CIFAR-10 images, or from normal ones of another size."""
    spec = model.inputs[0]
    sizes = [d for d in (spec.shape or ())[1:] if isinstance(d, int)]
    if sizes[1:] == [32, 32]:
        data = cifar("train", 256)
    else:
        images = np.random.default_rng(0).standard_normal((8, *sizes)).astype(np.float32)
        data = Dataset.of_arrays({spec.name: images}, batch=2)
    ctx = Context(target=target, data=data)
    return QuantizeStatic()(Simplify()(model, ctx), ctx)


#: How each network is quantized: convolutions statically, transformers dynamically.
INT8: Mapping[str, Callable[[Model, Target], Model]] = {
    name: dynamic_int8 if name in {"minilm", "vit", "convnext", "bert", "swin"} else static_int8
    for name in NETWORKS
}


def quality(name: str, before: Model, after: Model, images: int) -> str:
    """Return the quality without and with rewrites on unseen data; "-" for untrained networks."""
    if name in CIFAR:
        data, metric = cifar("eval", images), "top1"
    elif name == "minilm":
        data = Dataset.open("examples.minilm:stsb_dev")
        metric = "examples.minilm:spearman"
    else:
        return "-"
    values = [evaluate(model, data, metric).value for model in (before, after)]
    return f"{values[0]:.4f} -> {values[1]:.4f}"
