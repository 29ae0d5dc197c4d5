"""trimtab: the smallest, fastest ONNX model that still does its job, proved by measurement.

    import trimtab
    model = trimtab.export(module, inputs)              # PyTorch -> ONNX, parity proved
    model = trimtab.load("model.onnx")                  # or start from ONNX
    found = trimtab.optimize(model, data, constraints={"max_drop": 0.01})
    found.model.save("small.onnx")

Names are imported when they are first used, so `import trimtab` is fast and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .core.light_import import import_onnx_ir_without_sympy

if TYPE_CHECKING:
    from trimtab.core.context import Context
    from trimtab.core.data import Batch
    from trimtab.core.dataset import Dataset
    from trimtab.core.errors import TrimtabError
    from trimtab.core.metric import Metric, Pooled, Quality, evaluate
    from trimtab.core.model import Model
    from trimtab.core.target import Target
    from trimtab.runtime_bench.measure.compare import compare

    from .exporter import export
    from .open_model import open_model as load
    from .search.optimize import optimize
    from .search.recipe import Recipe
    from .search.reporting.outcome import Outcome
    from .search.result import Result
    from .session_file import session

    __version__: str

_HOMES = {
    "Batch": "trimtab.core.dataset:Batch",
    "Context": "trimtab.core.context:Context",
    "Dataset": "trimtab.core.dataset:Dataset",
    "Metric": "trimtab.core.metric:Metric",
    "Model": "trimtab.core.model:Model",
    "Outcome": "trimtab.search.reporting.outcome:Outcome",
    "Pooled": "trimtab.core.metric:Pooled",
    "Quality": "trimtab.core.metric:Quality",
    "Recipe": "trimtab.search.recipe:Recipe",
    "Result": "trimtab.search.result:Result",
    "Target": "trimtab.core.target:Target",
    "TrimtabError": "trimtab.core.errors:TrimtabError",
    "compare": "trimtab.runtime_bench.measure.compare:compare",
    "evaluate": "trimtab.core.metric:evaluate",
    "export": "trimtab.exporter:export",
    "load": "trimtab.open_model:open_model",
    "optimize": "trimtab.search.optimize:optimize",
    "session": "trimtab.session_file:session",
}

__all__ = [
    "Batch",
    "Context",
    "Dataset",
    "Metric",
    "Model",
    "Outcome",
    "Pooled",
    "Quality",
    "Recipe",
    "Result",
    "Target",
    "TrimtabError",
    "compare",
    "evaluate",
    "export",
    "load",
    "optimize",
    "session",
]

import_onnx_ir_without_sympy()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("trimtab")
    if name not in _HOMES:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}{_passes_like(name)}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _passes_like(name: str) -> str:
    """Return where the passes are whose commands begin with a name, as `quantize`."""
    from importlib.util import find_spec

    if name.startswith("_") or find_spec(f"trimtab.{name}") is not None:  # a folder to import
        return ""
    passes = importlib.import_module("trimtab.passes")
    near = [kind for kind in passes.__all__ if kind.lower().startswith(name.lower())]
    found = ", ".join(f"trimtab.passes.{kind}" for kind in near)
    return f"; passes are classes, called with a model: {found}" if found else ""


def __dir__() -> list[str]:
    return sorted(__all__)
