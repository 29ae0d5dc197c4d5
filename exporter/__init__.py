"""Export of a `torch.nn.Module` to a `Model`, with parity proved.

Names are imported when they are first used, so `import trimtab.exporter` does not import torch.

    model = export(load_module("package.module:factory", "weights.safetensors"))
    model.save("model.onnx")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trimtab.core.errors import MissingExtraError

if TYPE_CHECKING:
    from .specs import InputSpec, parse_dynamic, parse_input_spec, weights_file
    from .to_model import export
    from .weights import load_module, load_weights

_HOMES = {
    "InputSpec": "specs",
    "export": "to_model",
    "load_module": "weights",
    "load_weights": "weights",
    "parse_dynamic": "specs",
    "parse_input_spec": "specs",
    "weights_file": "specs",
}

__all__ = [
    "InputSpec",
    "export",
    "load_module",
    "load_weights",
    "parse_dynamic",
    "parse_input_spec",
    "weights_file",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"torch", "onnxscript", "safetensors"}:
            raise
        raise MissingExtraError(
            f"export needs {error.name}, which is not installed", extra="torch"
        ) from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
