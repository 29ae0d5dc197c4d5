"""Passes: functions from model to model, each imported on first use.

    from trimtab.passes import QuantizeStatic, Simplify
    small = QuantizeStatic(data=calibration)(Simplify()(model))

A pass of this package is a row of `_HOMES` and an import under `TYPE_CHECKING`; a test compares
both with a scan of the folder. Passes of other packages come by the entry point `trimtab.passes`.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Pass, Rewrite
    from .float16.float16 import Half
    from .graph.declined import Declined
    from .pruning.channels import PruneChannels
    from .pruning.gradual import PruneGradually
    from .pruning.magnitude import PruneMagnitude
    from .pruning.weight_clustering import ClusterWeights
    from .quantization.algorithms.adaptive_rounding import RoundWeights
    from .quantization.algorithms.bias_absorption import AbsorbBias
    from .quantization.algorithms.bias_correction import CorrectBias
    from .quantization.algorithms.cross_layer_equalization import Equalize
    from .quantization.algorithms.smooth_quant import SmoothQuant
    from .quantization.auto import QuantizeAuto
    from .quantization.compress_weights import CompressWeights
    from .quantization.dequantize import Dequantize
    from .quantization.dynamic import QuantizeDynamic
    from .quantization.static import QuantizeStatic
    from .quantization.weight_only import QuantizeWeights
    from .simplify.simplify import Simplify
    from .training.finetune import Finetune
    from .tuning.apply_rewrites import ApplyRewrites
    from .tuning.tune import Tune

    ApplyForms = ApplyRewrites
    Recover = Finetune

#: Class and module of each pass, by its name in recipes and on the command line.
_HOMES = {
    "absorb-bias": ("AbsorbBias", "quantization.algorithms.bias_absorption"),
    "apply-rewrites": ("ApplyRewrites", "tuning.apply_rewrites"),
    "cluster-weights": ("ClusterWeights", "pruning.weight_clustering"),
    "compress-weights": ("CompressWeights", "quantization.compress_weights"),
    "correct-bias": ("CorrectBias", "quantization.algorithms.bias_correction"),
    "dequantize": ("Dequantize", "quantization.dequantize"),
    "equalize": ("Equalize", "quantization.algorithms.cross_layer_equalization"),
    "half": ("Half", "float16.float16"),
    "prune-channels": ("PruneChannels", "pruning.channels"),
    "prune-gradually": ("PruneGradually", "pruning.gradual"),
    "prune-magnitude": ("PruneMagnitude", "pruning.magnitude"),
    "quantize-auto": ("QuantizeAuto", "quantization.auto"),
    "quantize-dynamic": ("QuantizeDynamic", "quantization.dynamic"),
    "quantize-static": ("QuantizeStatic", "quantization.static"),
    "quantize-weights": ("QuantizeWeights", "quantization.weight_only"),
    "finetune": ("Finetune", "training.finetune"),
    "round-weights": ("RoundWeights", "quantization.algorithms.adaptive_rounding"),
    "simplify": ("Simplify", "simplify.simplify"),
    "smooth-quant": ("SmoothQuant", "quantization.algorithms.smooth_quant"),
    "tune": ("Tune", "tuning.tune"),
}
#: Old names in recipes and on the command line, which go on working.
ALIASES = {"apply-forms": "apply-rewrites", "recover": "finetune"}
_CLASSES = dict(_HOMES.values())
_CLASSES |= {"Declined": "graph.declined", "Pass": "base", "Rewrite": "base"}
_OLD_CLASSES = {"ApplyForms": "ApplyRewrites", "Recover": "Finetune"}

__all__ = [
    "AbsorbBias",
    "ApplyForms",
    "ApplyRewrites",
    "ClusterWeights",
    "CompressWeights",
    "CorrectBias",
    "Declined",
    "Dequantize",
    "Equalize",
    "Finetune",
    "Half",
    "Pass",
    "PruneChannels",
    "PruneGradually",
    "PruneMagnitude",
    "QuantizeAuto",
    "QuantizeDynamic",
    "QuantizeStatic",
    "QuantizeWeights",
    "Recover",
    "Rewrite",
    "RoundWeights",
    "Simplify",
    "SmoothQuant",
    "Tune",
    "find",
    "names",
    "registry",
]


@functools.cache
def _plugins() -> dict[str, type[Pass]]:
    """Return the passes of other packages, by name."""
    from importlib.metadata import entry_points

    kinds = [point.load() for point in entry_points(group="trimtab.passes")]
    return {kind.name(): kind for kind in kinds}


def names() -> list[str]:
    """Return the names of all passes, sorted; only those of other packages are imported."""
    return sorted({*_HOMES, *_plugins()})


class _Registry(dict[str, "type[Pass]"]):
    """Passes by name; one that was renamed is found by its old name as well."""

    def __missing__(self, name: str) -> type[Pass]:
        return self[ALIASES[name]]


def registry() -> dict[str, type[Pass]]:
    """Return every pass by name: this package's, and entry points `trimtab.passes` of others."""
    return _Registry({name: find(name) for name in names()})


def find(name: str) -> type[Pass]:
    """Find a pass by its name, or by an old name of it.

    Raises:
        OptionError: there is none; the nearest is suggested.
    """
    name = ALIASES.get(name, name)
    if name in _plugins():
        return _plugins()[name]
    if name not in _HOMES:
        from trimtab.core.errors import close_to, unknown

        # An old name that is nearly right is told; a list has the new ones.
        raise unknown("pass", name, close_to(name, [*names(), *ALIASES]) or names())
    kind: type[Pass] = getattr(importlib.import_module(__name__), _HOMES[name][0])
    return kind


def __getattr__(name: str) -> Any:
    name = _OLD_CLASSES.get(name, name)
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_CLASSES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
