"""Reference networks in plain PyTorch, their training loop and small data.

Every name is imported when it is first used, so `import trimtab.models` brings no torch. Adding
a network takes one file and one row in `NETWORKS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from trimtab.core.errors import MissingExtraError, unknown


@dataclass(frozen=True)
class Input:
    """Input of a network's `forward`.

    Attributes:
        name: parameter of `forward`.
        shape: axes; one of free size is a name, such as "batch".
        dtype: element type as in NumPy.
        sizes: size of each free axis in `example_inputs`, except the batch, which is 1.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """Row of `NETWORKS`.

    Attributes:
        factory: factory as `module:callable`, as `trimtab export` takes it.
        inputs: inputs of `forward`, in order.
        width: option of the factory that sets the length of an output row.
        options: arguments of this variant.
    """

    factory: str
    inputs: tuple[Input, ...]
    width: str = "num_classes"
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, **options: Any) -> Any:
        """Build the `torch.nn.Module`, with the row's options and these.

        Raises:
            MissingExtraError: torch is not installed.
        """
        module, _, name = self.factory.partition(":")
        return getattr(_load(module), name)(**{**self.options, **options})


def _image(size: int, channels: int = 3) -> tuple[Input, ...]:
    sizes = {"height": size, "width": size}
    return (Input("input", ("batch", channels, "height", "width"), sizes=sizes),)


def _tokens(length: int) -> tuple[Input, ...]:
    names = ("input_ids", "attention_mask")
    axes = ("batch", "sequence")
    return tuple(Input(name, axes, "int64", {"sequence": length}) for name in names)


_CIFAR_10 = {"cifar": True, "num_classes": 10}
NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "resnet20": Network("trimtab.models.resnet_cifar:resnet20", _image(32)),
        "resnet56": Network("trimtab.models.resnet_cifar:resnet56", _image(32)),
        "resnet18": Network("trimtab.models.resnet:resnet18", _image(224)),
        "resnet50": Network("trimtab.models.resnet:resnet50", _image(224)),
        "vgg16": Network("trimtab.models.vgg:vgg16", _image(224)),
        "vgg16_cifar": Network("trimtab.models.vgg:vgg16", _image(32), options=_CIFAR_10),
        "mobilenet_v2": Network("trimtab.models.mobilenet:mobilenet_v2", _image(224)),
        "mobilenet_v2_cifar": Network(
            "trimtab.models.mobilenet:mobilenet_v2", _image(32), options=_CIFAR_10
        ),
        "text_encoder": Network("trimtab.models.encoder:text_encoder", _tokens(32), width="width"),
        "digits_cnn": Network("trimtab.models.digits:digits_cnn", _image(8, channels=1)),
    }
)

# Public names and their modules: the factories, and what is not a network.
_HOMES = {row.factory.partition(":")[2]: row.factory.partition(":")[0] for row in NETWORKS.values()}
_HOMES |= {"digits_arrays": "trimtab.models.digits_data", "train_digits": "trimtab.models.digits"}
_HOMES |= dict.fromkeys(("Training", "mirrored", "shifted", "train"), "trimtab.models.training")

__all__ = ["NETWORKS", "Input", "Network", "build", *_HOMES]  # noqa: PLE0604 - names are strings


def build(name: str, **options: Any) -> Any:
    """Build the network of a row of `NETWORKS`, untrained; options as `num_classes` go to it.

    Raises:
        OptionError: an unknown name.
        MissingExtraError: torch is not installed.
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name].build(**options)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_load(_HOMES[name], where=name), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _load(module: str, where: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise MissingExtraError(
            "the reference networks need PyTorch, which is not installed",
            where=where or module,
            extra="torch",
        ) from error
