"""Root mean squares of the channels that weights read, the factors of Wanda's importance.

Sun et al. 2023, "A simple and effective pruning approach for large language models", arXiv
2306.11695, equation 1: |w_ij| times the norm of input j.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.data import Array
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.model import Model

from ..graph.partial_run import channel_rows
from ..graph.stored.weights import Weight
from .observation import observe

#: An operator, and the index of the weight among its inputs.
Usage = tuple[ir.Node, int]
#: Factors that broadcast against a weight, by its name.
Factors = dict[str, Array]

#: Rows of one run, whose inputs of weights are all in memory.
ROWS = 8


def input_norms(model: Model, weights: Sequence[Weight], data: Dataset, ctx: Context) -> Factors:
    """Return for each weight the root mean square of the channel that each of its elements reads.

    Over all operators that share the weight. 1 where the weight reads no tensor of the main graph.

    Raises:
        DataError: a tensor that a weight reads is not finite.
    """
    fed = {spec.name for spec in model.inputs}
    read = {w.name: [u for u in w.value.uses() if _source(u) is not None] for w in weights}
    outer = {str(v.name) for n in model.graph for v in n.outputs} | fed
    names = {_source(u) for uses in read.values() for u in uses} & outer
    inner = sorted(name for name in names if name and name not in fed)
    sums = {w.name: np.zeros(1) for w in weights}
    counts = dict.fromkeys(sums, 0)
    for arrays in observe(model, inner, data, ctx, "measuring inputs", ROWS):
        for weight in weights:
            for use in read[weight.name]:
                if _source(use) not in names:
                    continue
                flat = _channels(use, arrays[str(_source(use))])
                sums[weight.name] = sums[weight.name] + np.einsum("ij,ij->j", flat, flat)
                counts[weight.name] += len(flat)
    found: Factors = {}
    for weight in weights:
        norms = np.sqrt(sums[weight.name] / max(counts[weight.name], 1))
        if not np.isfinite(norms).all():
            raise DataError(
                f"the input of weight {weight.name!r} takes NaN or infinity",
                where=data.spec,
                hint="Check the data; importance computed from it would be meaningless",
            )
        found[weight.name] = _broadcast(weight, norms) if counts[weight.name] else np.ones(())
    return found


def _source(use: Usage) -> str | None:
    """Return the name of the tensor that an operator multiplies its weight with."""
    node, index = use
    value = node.inputs[1 - index] if len(node.inputs) > 1 else None
    return None if value is None else value.name


def _channels(use: Usage, array: Array) -> Array:
    """Return the tensor that is read as (positions, channels), in double precision."""
    node, index = use
    axis = 1 if node.op_type in {"Conv", "ConvTranspose"} else array.ndim - 1
    if node.op_type == "Gemm":
        axis = 0 if node.attributes.get_int("transA", 0) == 1 else 1
    if index == 0:  # the weight is the left factor
        axis = max(array.ndim - 2, 0)
    return channel_rows(array, axis).astype(np.float64)


def _broadcast(weight: Weight, norms: Array) -> Array:
    """Reshape the channels' norms so that they broadcast against the weight."""
    layout, shape = weight.layout, weight.array().shape
    if norms.size == shape[layout.inputs]:
        return norms.reshape([-1 if a == layout.inputs else 1 for a in range(len(shape))])
    # A grouped convolution: each run of outputs reads channels of its own.
    runs = norms.reshape(-1, shape[layout.inputs])
    table = np.repeat(runs, shape[layout.outputs] // len(runs), axis=0)
    return table.reshape([shape[a] if a in {0, 1} else 1 for a in range(len(shape))])
