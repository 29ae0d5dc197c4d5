"""Any ONNX graph as a torch module that can be trained, and back into the same graph.

Every name is imported when it is first used, so this package may be looked at without torch.

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
    from .training import finetune
    from .weights import write_back

_HOMES = {
    "TorchGraph": "module",
    "finetune": "training",
    "round_softly": "rounding",
    "to_module": "module",
    "write_back": "weights",
}

__all__ = ["TorchGraph", "finetune", "round_softly", "to_module", "write_back"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_load(_HOMES[name]), name)


def _load(home: str) -> Any:
    try:
        return importlib.import_module(f"{__name__}.{home}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise MissingExtraError(
            "training a graph needs PyTorch, which is not installed", extra="torch"
        ) from error
