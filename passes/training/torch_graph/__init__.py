"""Conversion of an ONNX graph to a trainable torch module, and of its weights back to the graph.

Names are imported when they are first used, so the package itself imports without torch.

    module = to_module(model)            # parameters are the graph's initializers, by name
    ...                                  # train it
    trained = write_back(model, module)  # the same graph with the new weights
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trimtab.core.errors import MissingExtraError

if TYPE_CHECKING:
    from .module import TorchGraph, to_module
    from .rounding import round_softly
    from .training import train_graph
    from .weights import write_back

_MODULES = {
    "TorchGraph": "module",
    "round_softly": "rounding",
    "to_module": "module",
    "train_graph": "training",
    "write_back": "weights",
}

__all__ = ["TorchGraph", "round_softly", "to_module", "train_graph", "write_back"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_load(_MODULES[name]), name)


def _load(module: str) -> Any:
    try:
        return importlib.import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise MissingExtraError(
            "training a graph needs PyTorch, which is not installed", extra="torch"
        ) from error
