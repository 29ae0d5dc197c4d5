"""Which recipes to try on a model."""

from __future__ import annotations

from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes import find
from trimtab.passes.base import Pass
from trimtab.recipe import Recipe

#: Share of weights that magnitude pruning sets to zero without retraining.
SPARSITY = 0.2


def plan(model: Model, calibration: Dataset, target: Target) -> tuple[Recipe, ...]:  # noqa: ARG001
    """The candidates: float, pruned, dynamic int8, static int8 by each range method, and forms.

    Args:
        model: the float original.
        calibration: what static quantization calibrates on.
        target: where it will run.
    """
    simplify = find("simplify")()
    prune = find("prune-magnitude").from_json({"sparsity": SPARSITY, "scope": "global"})
    dynamic = find("quantize-dynamic")()
    static = find("quantize-static")
    forms = find("apply-forms")()
    methods = static.fields()["ranges"].choices

    def calibrated(method: str) -> Pass:
        return static.from_json({"data": calibration, "ranges": method})

    default = static.fields()["ranges"].default
    candidates = [
        Recipe("float simplified", (simplify,)),
        Recipe("float, other forms", (simplify, forms)),
        Recipe(f"pruned {SPARSITY:.0%}", (simplify, prune)),
        Recipe("int8 dynamic", (simplify, dynamic)),
        Recipe("int8 dynamic, other forms", (simplify, dynamic, forms)),
        *(Recipe(f"int8 static {m}", (simplify, calibrated(m))) for m in methods),
        Recipe("int8 static, other forms", (simplify, calibrated(default), forms)),
        Recipe(f"pruned {SPARSITY:.0%}, int8 static", (simplify, prune, calibrated(default))),
    ]
    return tuple(candidates)
