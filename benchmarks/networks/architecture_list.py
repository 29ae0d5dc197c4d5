"""Architectures of timm, transformers, segmentation-models-pytorch and ultralytics, built small.

All have random weights: nothing is downloaded. Widths, depths and inputs are the least that keep
every kind of layer of the architecture.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, cast

from torch import Tensor, nn


@dataclass(frozen=True)
class Architecture:
    """A network and what it is fed.

    Attributes:
        name: library and name, `timm/resnet18`.
        build: makes the module.
        shape: shape of one row of its input.
        ids: size of the table that integer inputs index, 0 for images and sound.
        head: prefix of the modules whose outputs must keep their channels.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    ids: int = 0
    head: str = ""


class FirstTensor(nn.Module):
    """A network of transformers, whose output is one tensor."""

    def __init__(self, module: nn.Module, **options: Any) -> None:
        super().__init__()
        self.module, self.options = module, options

    def forward(self, x: Tensor) -> Tensor:
        """Its logits, else its last hidden state."""
        made = self.module(x, **self.options)
        logits = getattr(made, "logits", None)
        result: Tensor = made.last_hidden_state if logits is None else logits
        return result


def _timm(name: str, size: int = 64, blocks: int = 0, **options: Any) -> Architecture:
    def build() -> nn.Module:
        made: Any = importlib.import_module("timm").create_model(
            name, pretrained=False, num_classes=10, **options
        )
        if blocks:
            made.blocks = made.blocks[:blocks]
        return cast("nn.Module", made)

    return Architecture(f"timm/{name}", build, (3, size, size), head="@classifier")


def _transformers(
    kind: str, config: str, shape: tuple[int, ...], ids: int = 0, **options: Any
) -> Architecture:
    def build() -> nn.Module:
        library = importlib.import_module("transformers")
        made = getattr(library, kind)(getattr(library, f"{config}Config")(**options))
        caches = {"use_cache": False} if hasattr(made.config, "use_cache") and ids else {}
        return FirstTensor(made, **caches)

    return Architecture(f"transformers/{kind}", build, shape, ids, head="module.classifier")


def _smp(kind: str, size: int = 64, encoder: str = "resnet18") -> Architecture:
    def build() -> nn.Module:
        library = importlib.import_module("segmentation_models_pytorch")
        made: nn.Module = getattr(library, kind)(encoder, encoder_weights=None, classes=3)
        return made

    return Architecture(f"smp/{kind}", build, (3, size, size), head="segmentation_head")


def _ultralytics(name: str) -> Architecture:
    def build() -> nn.Module:
        tasks = importlib.import_module("ultralytics.nn.tasks")
        kind = {"cls": "ClassificationModel", "seg": "SegmentationModel", "pose": "PoseModel"}
        found = kind.get(name.partition("-")[2], "DetectionModel")
        made: nn.Module = getattr(tasks, found)(f"{name}.yaml", verbose=False)
        return made

    return Architecture(f"ultralytics/{name}", build, (3, 64, 64), head="@last")


_TEXT = {"vocab_size": 200, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
_WIDE = {**_TEXT, "intermediate_size": 128, "max_position_embeddings": 64}
_VISION = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
_PATCHES = {**_VISION, "intermediate_size": 128, "image_size": 32, "patch_size": 8}
_SOUND = {
    "conv_dim": (32, 32, 32), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3),
    "num_feat_extract_layers": 3, "num_conv_pos_embedding_groups": 4, "num_conv_pos_embeddings": 16,
    "intermediate_size": 128, **_VISION,
}  # fmt: skip

_ONE, _TWO = (1, 1, 1, 1), (2, 2, 2, 2)
_DEPTHS: dict[str, dict[str, Any]] = {
    "resnet18": {}, "mobilenetv3_small_050": {}, "convnext_atto": {},
    "regnety_002": {}, "efficientnet_b0": {}, "repvgg_a0": {}, "ghostnet_050": {},
    "poolformer_s12": {}, "mobilevit_xxs": {}, "hrnet_w18_small": {},
    "densenet121": {"block_config": _TWO}, "edgenext_xx_small": {"depths": _TWO},
    "efficientvit_b0": {"depths": (1, 1, 1, 1, 1)}, "fastvit_t8": {"layers": _ONE},
    "mobileone_s0": {}, "lcnet_050": {}, "mnasnet_small": {}, "rexnet_100": {}, "dla46_c": {},
    "ese_vovnet19b_dw": {}, "skresnet18": {"layers": _ONE}, "resnest14d": {},
    "convnextv2_atto": {"depths": _ONE}, "pvt_v2_b0": {"depths": _ONE}, "mobilenetv2_050": {},
    "seresnet50": {"layers": _ONE}, "tinynet_e": {},
}  # fmt: skip
TIMM = [_timm(name, **depths) for name, depths in _DEPTHS.items()]
TIMM += [
    _timm("vit_tiny_patch16_224", img_size=64, depth=2),
    _timm("levit_128s", img_size=64),
    _timm("mixer_s32_224", img_size=64, blocks=2),
    _timm("swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=_TWO),
    _timm("xcit_nano_12_p16_224", img_size=64, depth=2),
    _timm("gmlp_ti16_224", img_size=64, blocks=2),
]
TRANSFORMERS = [
    _transformers("BertForSequenceClassification", "Bert", (9,), 200, **_WIDE),
    _transformers("GPT2LMHeadModel", "GPT2", (9,), 200, vocab_size=200, n_embd=64, n_layer=2,
                  n_head=4, n_positions=32),
    _transformers("ViTForImageClassification", "ViT", (3, 32, 32), **_PATCHES),
    _transformers("LlamaForCausalLM", "Llama", (9,), 200, num_key_value_heads=2, **_WIDE),
    _transformers("T5EncoderModel", "T5", (9,), 200, vocab_size=200, d_model=64, d_kv=16, d_ff=128,
                  num_layers=2, num_heads=4),
    _transformers("Wav2Vec2Model", "Wav2Vec2", (2000,), **_SOUND),
    _transformers("DistilBertForSequenceClassification", "DistilBert", (9,), 200, vocab_size=200,
                  dim=64, hidden_dim=128, n_layers=2, n_heads=4),
    _transformers("AlbertForSequenceClassification", "Albert", (9,), 200,
                  embedding_size=32, **_WIDE),
    _transformers("SegformerForImageClassification", "Segformer", (3, 64, 64),
                  hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1],
                  num_attention_heads=[1, 2, 3, 4]),
    _transformers("ElectraForSequenceClassification", "Electra", (9,), 200,
                  embedding_size=32, **_WIDE),
    _transformers("RobertaForSequenceClassification", "Roberta", (9,), 200, **_WIDE),
    _transformers("ResNetForImageClassification", "ResNet", (3, 64, 64), embedding_size=16,
                  hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], layer_type="basic"),
]  # fmt: skip
SMP = [
    *map(_smp, ("Unet", "FPN", "DeepLabV3Plus", "Linknet", "PSPNet", "MAnet", "UnetPlusPlus")),
    _smp("PAN", 128),
]
ULTRALYTICS = [*map(_ultralytics, ("yolov8n", "yolo11n", "yolov8n-cls", "yolov5n", "yolov8n-seg"))]


def architectures() -> Iterator[Architecture]:
    """Yield all, of each library in turn, so that a part of them covers all libraries."""
    turns = zip_longest(TIMM[0::2], TRANSFORMERS, TIMM[1::2], SMP, ULTRALYTICS)
    return (found for found in chain.from_iterable(turns) if found is not None)
