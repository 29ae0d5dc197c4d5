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
    from .base import Declined as Declined
    from .base import Pass as Pass
    from .base import Rewrite as Rewrite
    from .float16.float16 import Half as Half
    from .pruning.channels import PruneChannels as PruneChannels
    from .pruning.gradual import PruneGradually as PruneGradually
    from .pruning.magnitude import PruneMagnitude as PruneMagnitude
    from .pruning.weight_clustering import ClusterWeights as ClusterWeights
    from .quantization.algorithms.adaptive_rounding import RoundWeights as RoundWeights
    from .quantization.algorithms.bias_absorption import AbsorbBias as AbsorbBias
    from .quantization.algorithms.bias_correction import CorrectBias as CorrectBias
    from .quantization.algorithms.cross_layer_equalization import Equalize as Equalize
    from .quantization.algorithms.smooth_quant import SmoothQuant as SmoothQuant
    from .quantization.auto import QuantizeAuto as QuantizeAuto
    from .quantization.dequantize import Dequantize as Dequantize
    from .quantization.dynamic import QuantizeDynamic as QuantizeDynamic
    from .quantization.static import QuantizeStatic as QuantizeStatic
    from .quantization.weight_only import QuantizeWeights as QuantizeWeights
    from .simplify.simplify import Simplify as Simplify
    from .training.finetune import Finetune as Finetune
    from .tuning.apply_rewrites import ApplyRewrites as ApplyRewrites
    from .tuning.tune import Tune as Tune

    ApplyForms = ApplyRewrites
    Recover = Finetune

#: Class and module of each pass, by its name in recipes and on the command line.
_HOMES = {
    "absorb-bias": ("AbsorbBias", "quantization.algorithms.bias_absorption"),
    "apply-rewrites": ("ApplyRewrites", "tuning.apply_rewrites"),
    "cluster-weights": ("ClusterWeights", "pruning.weight_clustering"),
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
_CLASSES |= {"Declined": "base", "Pass": "base", "Rewrite": "base"}
_OLD_CLASSES = {"ApplyForms": "ApplyRewrites", "Recover": "Finetune"}

__all__ = ["find", "names", "registry"]
__all__ += list(_CLASSES | _OLD_CLASSES)


@functools.cache
def _plugins() -> dict[str, type[Pass]]:
    """Return the passes of other packages, by name."""
    from importlib.metadata import entry_points

    kinds = [point.load() for point in entry_points(group="trimtab.passes")]
    return {kind.name(): kind for kind in kinds}


def names() -> list[str]:
    """Return the names of all passes, sorted; only those of other packages are imported."""
    return sorted({*_HOMES, *_plugins()})


def registry() -> dict[str, type[Pass]]:
    """Return every pass by name: this package's, and entry points `trimtab.passes` of others."""
    return {name: find(name) for name in names()}


def find(name: str) -> type[Pass]:
    """Find a pass by its name, or by an old name of it.

    Raises:
        OptionError: there is none; the nearest is suggested.
    """
    name = ALIASES.get(name, name)
    if name in _plugins():
        return _plugins()[name]
    if name not in _HOMES:
        from trimtab.core.errors import unknown

        raise unknown("pass", name, names())
    kind: type[Pass] = getattr(importlib.import_module(__name__), _HOMES[name][0])
    return kind


def __getattr__(name: str) -> Any:
    name = _OLD_CLASSES.get(name, name)
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_CLASSES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
