"""Networks on which `verification.py` verifies pruning, each built on first use."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from common.data import minilm, network, own
from torch import Tensor, nn

from trimtab.core.model import Model
from trimtab.exporter import export

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
OWN = ("digits_cnn", "mobilenet_v2", "resnet18", "resnet50", "text_encoder", "vgg16")
SHARED = ("resnet20", "resnet56", "mobilenet_v2")


class UNet(nn.Module):
    """Down, up by a transposed convolution, and the skipped tensor beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.last = nn.Conv2d(32, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 2, 32, 32)."""
        skipped = torch.relu(self.first(x))
        deep = torch.relu(self.up(torch.relu(self.down(skipped))))
        result: Tensor = self.last(torch.cat([skipped, deep], 1))
        return result


class Espcn(nn.Module):
    """Super-resolution: every channel in front of the last becomes four pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 5, padding=2)
        self.middle = nn.Conv2d(32, 64, 3, padding=1)
        self.last = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 16, 16) -> (N, 1, 32, 32)."""
        wide = torch.pixel_shuffle(torch.tanh(self.middle(torch.tanh(self.first(x)))), 2)
        result: Tensor = self.last(wide)
        return result


class Gated(nn.Module):
    """Squeeze and excitation (Hu et al. 2018), group normalisation, chunk and gate."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.norm = nn.GroupNorm(8, 32)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.wide, self.last = nn.Conv2d(32, 64, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 16, 16) -> (N, 4, 16, 16)."""
        x = torch.relu(self.norm(self.first(x)))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        first, second = self.wide(x).chunk(2, 1)
        result: Tensor = self.last(first * torch.sigmoid(second))
        return result


class Logits(nn.Module):
    """A network of transformers, whose output is a tensor."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Its logits."""
        result: Tensor = self.module(x).logits
        return result


def hugging_face(kind: str, size: int, **options: Any) -> Model:
    """A small network of transformers with random weights."""
    module = importlib.import_module("transformers")
    task = "SequenceClassification" if kind == "Bert" else "ImageClassification"
    made = getattr(module, f"{kind}For{task}")(getattr(module, f"{kind}Config")(**options))
    text = torch.randint(0, 100, (1, size))
    return export(Logits(made), text if kind == "Bert" else torch.randn(1, 3, size, size))


_IMAGE = {"image_size": 32, "patch_size": 8}
_WIDE = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
NETWORKS: dict[str, Callable[[], Model]] = {
    **{f"shared {n}": functools.partial(network, n) for n in SHARED},
    **{f"our {n}": functools.partial(own, n) for n in OWN},
    **{p.stem: functools.partial(Model.load, p) for p in sorted(LIGHT.glob("light_*.onnx"))},
    "unet": lambda: export(UNet(), torch.randn(1, 3, 32, 32)),
    "espcn": lambda: export(Espcn(), torch.randn(1, 1, 16, 16)),
    "gated": lambda: export(Gated(), torch.randn(1, 3, 16, 16)),
    "vit": lambda: hugging_face("ViT", 32, intermediate_size=128, **_IMAGE, **_WIDE),
    "bert": lambda: hugging_face("Bert", 9, vocab_size=200, intermediate_size=128, **_WIDE),
    "convnext": lambda: hugging_face(
        "ConvNext", 64, image_size=64, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1]
    ),
    "swin": lambda: hugging_face(
        "Swin", 64, image_size=64, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4,
        attn_implementation="eager",
    ),
    "mobilenet_v2 of transformers": lambda: hugging_face(
        "MobileNetV2", 64, image_size=64, depth_multiplier=0.5
    ),
    "minilm": minilm,
}  # fmt: skip
