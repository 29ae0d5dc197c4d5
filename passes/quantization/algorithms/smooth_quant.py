"""SmoothQuant: outliers of single features moved from activations, which share a scale, to weights.

    s_j = max|X_j|^alpha / max|W_j|^(1 - alpha),   X_j / s_j,   W_j s_j

for the features j that a matrix product sums over (Xiao et al. 2022, arXiv 2211.10438, formula 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError
from trimtab.core.model import Model

from ...base import Pass, Rewrite
from ...calibration.observation import observe
from ...graph.declined import Declined
from ...graph.edit import add_initializer
from ...graph.quantized import prepare_float
from ...graph.stored.weight_scales import channel_axis
from .scalable_pairs import weight_array

#: Normalisations with a gain for each feature, and optionally a shift.
_NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})
#: Factors stay within this and its inverse.
LARGEST = 1024.0


@dataclass(frozen=True)
class SmoothQuant(Pass):
    """Move outlier features from activations into weights, so that both survive 8 bits.

    The factors go into gain and shift of the normalisation that makes the activation. Where
    something else reads it too, as the residual connection of a BERT does, the layer is left alone
    unless `insert` is given. The function stays the same.

    Attributes:
        alpha: part of the difficulty that moves to the weights, 0 to 1.
        insert: insert a multiplication before the products where factors cannot be folded. It
            costs time, which only features with far larger values than the others repay.
        data: calibration data; that of the run if not given.
        samples: number of samples.
    """

    needs_data: ClassVar[bool] = True
    tolerance: ClassVar[float | None] = 1e-4
    layers_only: ClassVar[bool] = True

    alpha: float = 0.5
    insert: bool = False
    data: Dataset | None = None
    samples: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise OptionError("must lie between 0 and 1", where=f"alpha={self.alpha}")
        if self.samples < 1:
            raise OptionError("must be at least 1", where=f"samples={self.samples}")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Measure the largest value of each feature, then scale."""
        prepare_float(model)
        declined: list[Declined] = []
        chosen: list[tuple[ir.Value, list[ir.Node]]] = []
        for value, products in _read_by_products(model.graph):
            reason = "" if self.insert else _decline_reason(value, products)
            if reason:
                declined += [Declined(node.name or "", reason) for node in products]
            else:
                chosen.append((value, products))
        if not chosen:
            return Rewrite(model.ir, declined, {"smoothed": 0})
        data = ctx.dataset(self.data, model, purpose="SmoothQuant").take(self.samples)
        largest = _largest(model, [value.name or "" for value, _ in chosen], data, ctx)
        for value, products in chosen:
            factors = self._factors(largest[value.name or ""], products)
            _scale(model.graph, value, products, factors)
        names = [node.name or "" for node in model.graph if node.op_type == "Mul"]
        inserted = sum(name.endswith("_smooth_mul") for name in names)
        return Rewrite(model.ir, declined, {"smoothed": len(chosen), "inserted": inserted})

    def _factors(self, largest: Floats, products: Sequence[ir.Node]) -> Floats:
        weights = np.max([np.abs(_rows(node)).max(axis=1) for node in products], axis=0)
        alive = (largest > 0) & (weights > 0)
        x, w = np.where(alive, largest, 1.0), np.where(alive, weights, 1.0)
        factors: Floats = np.clip(x**self.alpha / w ** (1 - self.alpha), 1 / LARGEST, LARGEST)
        # A common factor changes no relation between features, so it is divided out.
        return np.asarray(factors / np.exp(np.log(factors).mean()))


def _read_by_products(graph: ir.Graph) -> list[tuple[ir.Value, list[ir.Node]]]:
    """List the inputs of products with unshared constant weights, each with these products."""
    found: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        if node.op_type not in {"MatMul", "Gemm"} or node.inputs[0] is None:
            continue
        weight = node.inputs[1]
        transposed = node.attributes.get_int("transA", 0)
        if weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
            continue
        if weight.dtype == ir.DataType.FLOAT and len(weight.uses()) == 1 and not transposed:
            found.setdefault(node.inputs[0], []).append(node)
    return list(found.items())


def _decline_reason(value: ir.Value, products: Sequence[ir.Node]) -> str:
    """Return the reason why factors cannot go into the value's producer, empty where they can."""
    norm = value.producer()
    if norm is None or norm.op_type not in _NORMS:
        return "its input does not come from a normalisation to fold the factors into (see insert)"
    if value.is_graph_output() or len(value.uses()) > len(products):
        return "others read its input too, so the factors cannot be folded (see insert)"
    features = len(_rows(products[0]))
    fixed = [parameter.const_value for parameter in norm.inputs[1:] if parameter is not None]
    if any(tensor is None or tensor.shape.numpy() != (features,) for tensor in fixed):
        return "the normalisation before it does not have a constant for each feature"
    return ""


def _largest(
    model: Model, tensors: Sequence[str], data: Dataset, ctx: Context
) -> dict[str, Floats]:
    """Return the largest magnitude of each feature of the tensors: (features,)."""
    found: dict[str, Floats] = {}
    for arrays in observe(model, tensors, data, ctx, "collecting features"):
        for name in tensors:
            magnitudes = np.abs(arrays[name]).reshape(-1, arrays[name].shape[-1]).max(axis=0)
            found[name] = np.maximum(found.get(name, 0.0), magnitudes)
            if not np.isfinite(found[name]).all():
                raise DataError(f"tensor {name!r} takes NaN or infinity", where=data.spec)
    return found


def _scale(graph: ir.Graph, value: ir.Value, products: Sequence[ir.Node], factors: Floats) -> None:
    """Divide the value by the factors and multiply the weights."""
    for node in products:
        weight = node.inputs[1]
        assert weight is not None
        scaled = _rows(node) * factors[:, None]
        scaled = scaled if channel_axis(node) != 0 else scaled.T
        weight.const_value = ir.tensor(scaled.astype(np.float32), name=weight.name)
    if _decline_reason(value, products):
        _insert(graph, value, products, factors)
        return
    norm = value.producer()
    assert norm is not None
    for index in range(1, len(norm.inputs)):
        old = norm.inputs[index]
        if old is None or old.const_value is None:
            continue
        array = (old.const_value.numpy().astype(np.float64) / factors).astype(np.float32)
        # Normalisations may share their gain, so each gets its own.
        fresh = add_initializer(graph, f"{old.name}_{value.name}_smooth", array)
        norm.replace_input_with(index, fresh)
        if not old.uses() and not old.is_graph_input():
            graph.initializers.pop(old.name or "", None)


def _insert(graph: ir.Graph, value: ir.Value, products: Sequence[ir.Node], factors: Floats) -> None:
    inverse = add_initializer(graph, f"{value.name}_smooth", (1 / factors).astype(np.float32))
    output = ir.val(f"{value.name}_smoothed", shape=value.shape, type=value.type)
    name = f"{value.name}_smooth_mul"
    multiply = ir.node("Mul", [value, inverse], outputs=[output], name=name)
    graph.insert_before(next(node for node in graph if node in products), multiply)
    for node in products:
        node.replace_input_with(0, output)


def _rows(node: ir.Node) -> Floats:
    """Return a product's weight as (features that are summed over, outputs)."""
    return weight_array(node).T if channel_axis(node) == 0 else weight_array(node)
