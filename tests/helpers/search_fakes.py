"""A made clock for searches: int8 and fewer products are faster, by how much is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphs
from cnn_data import arrays
from made_comparisons import made_comparison

from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.search.steps.plan import SearchPlan


def fast_int8(base: Model, candidates: Sequence[Model], *rest: Any) -> list[Any]:
    """Measure int8 as twice as fast as float, and pruned models by their products."""
    found = []
    for model in candidates:
        ratio = 2.0 if any(n.op_type == "QuantizeLinear" for n in model.nodes()) else 1.0
        found.append(made_comparison(ratio * base.weight_bytes / max(1, float_bytes(model))))
    return found


def float_bytes(model: Model) -> int:
    """Return the bytes that the weights would take in float."""
    values = [v.const_value for v in model.graph.initializers.values() if v.const_value]
    return 4 * sum(v.size for v in values if v.size > 1)


LOOSE = {"max_drop": 1.0}

VNNI = Target.named("x64-avx512-vnni")


def plan_for(target: Target = VNNI, *, timed: bool = True) -> SearchPlan:
    """Return the plan of a small convolutional network."""
    data = Dataset.of_arrays({"x": arrays(40)["x"]})
    return SearchPlan.of(graphs.cnn(), data, target, None, timed=timed)
