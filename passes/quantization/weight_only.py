"""Weights of 4 or 8 bits in blocks; activations stay float or are quantized while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError
from trimtab.core.model import Model

from ..base import Rewrite
from ..graph.constant_reader import Folded
from ..graph.declined import Declined
from ..graph.edit import remove_unused_initializers, replace_output
from ..graph.gemm import first_factor, parts_of_gemm, with_bias
from ..graph.graph_writer import COMPUTED, FLOAT32, GraphWriter
from ..graph.patterns import match_nodes
from ..graph.quantized import with_constants
from ..graph.queries import is_onnx_op, pair, rank
from .algorithms.block_weights import (
    PackedWeight,
    RoundedWeight,
    RoundingGrid,
    pack,
    round_to_nearest,
)
from .algorithms.gptq import round_products
from .algorithms.hqq import half_quadratic
from .file_size import size_notes
from .quantizer import Quantizer

#: Block sizes that the kernels support.
BLOCKS = (16, 32, 64, 128, 256)
#: First operator set whose Add broadcasts.
BROADCAST_OPSET = 7
#: Operators with weights, and what those are called that it does not compute.
_PRODUCTS = {
    "Conv": "convolutions",
    "ConvTranspose": "convolutions",
    "GRU": "recurrent layers",
    "Gemm": "",
    "LSTM": "recurrent layers",
    "MatMul": "",
    "RNN": "recurrent layers",
}


@dataclass(frozen=True)
class QuantizeWeights(Quantizer):
    """Store the weights of matrix products in 4 or 8 bits, with a scale for each small block.

    Uses onnxruntime's MatMulNBits operator. It suits models that spend their time on reading
    weights, such as language models; where products are large, QuantizeStatic is faster.

    Attributes:
        bits: bits of a weight, 4 or 8.
        block: neighbouring weights that share a scale: 16, 32, 64, 128 or 256.
        symmetric: leave out zero points, which is smaller and a little less accurate.
        method: rtn rounds each weight by itself; hqq searches zero points robust to outliers
            (4 bits, needs torch); gptq lets later weights compensate errors of earlier ones, on
            calibration data.
        int8: quantize activations to int8 while the model runs, which is faster.
        exclude: nodes to leave float, by name or glob pattern.
        data: calibration data for gptq; that of the run if not given.
        samples: number of samples.
    """

    shrinks: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    keeps_bits: ClassVar[bool] = True

    bits: int = 4
    block: int = 32
    symmetric: bool = False
    method: Literal["rtn", "hqq", "gptq"] = "rtn"
    int8: bool = True
    exclude: tuple[str, ...] = ()
    data: Dataset | None = None
    samples: int = 128

    def __post_init__(self) -> None:
        if self.bits not in {4, 8}:
            raise OptionError("must be 4 or 8", where=f"bits={self.bits}")
        if self.block not in BLOCKS:
            raise OptionError(f"must be one of {BLOCKS}", where=f"block={self.block}")
        if self.samples < 1:
            raise OptionError("must be at least 1", where=f"samples={self.samples}")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Replace products with constant weights by MatMulNBits."""
        if self.method == "hqq" and (self.bits != 4 or self.symmetric):
            raise OptionError(
                "hqq supports 4 bits with zero points only",
                where=f"bits={self.bits}, symmetric={self.symmetric}",
                hint="Choose another method, or leave both fields at their defaults",
            )
        before, model = model, with_constants(model.clone(), BROADCAST_OPSET)
        excluded = match_nodes(self.exclude, model.graph)
        declined = [Declined(name, "excluded by the user") for name in excluded]
        writer = GraphWriter(model.graph)
        products, others = _products(writer, set(excluded))
        declined += others
        if not products:
            raise DataError(
                "has no matrix product with a constant weight",
                where=model.name,
                hint=_first_reason(model, declined) + _elsewhere(model),
            )
        report: dict[str, Any] = {"products": len(products)}
        rounded: dict[str, RoundedWeight] = {}
        if self.method == "gptq":
            rounded = self._compensated(model, products, ctx)
            report["compensated"] = len(rounded)
        report["weight_bytes_before"] = model.weight_bytes
        for product in ctx.progress.track(products, "rounding weights", len(products)):
            self._write(writer, product, rounded.get(product.name))
        writer.constants.remove_unread(model.graph)
        for part in (model.graph, *model.graph.subgraphs()):
            remove_unused_initializers(part)
        model.graph.opset_imports.setdefault("com.microsoft", 1)
        report["weight_bytes"] = model.weight_bytes
        return Rewrite(model.ir, declined, report | size_notes(before, model))

    @property
    def _grid(self) -> RoundingGrid:
        return RoundingGrid(self.bits, self.block, self.symmetric)

    def _compensated(
        self, model: Model, products: list[_Product], ctx: Context
    ) -> dict[str, RoundedWeight]:
        """Return weights rounded by GPTQ, of the products whose inputs can be observed."""
        data = ctx.dataset(self.data, model, purpose="gptq").take(self.samples)
        wanted = {
            p.name: (str(p.node.inputs[0].name), p.weight.array)
            for p in products
            if p.observable and p.node.inputs[0] is not None
        }
        return round_products(model, wanted, data, self._grid, ctx)

    def _write(self, writer: GraphWriter, product: _Product, rounded: RoundedWeight | None) -> None:
        """Replace a product by MatMulNBits, and the rest of a Gemm by an Add."""
        node, array = product.node, product.weight.array
        packed = self._packed(array, rounded)
        source = pair(node)[1].name
        owner = product.weight.graph
        inputs = [
            first_factor(writer, node) if node.op_type == "Gemm" else node.inputs[0],
            writer.constant(owner, packed.values, f"{source}_Q{self.bits}"),
            writer.constant(owner, packed.scales, f"{source}_scales"),
        ]
        if packed.zeros is not None:
            inputs.append(writer.constant(owner, packed.zeros, f"{source}_zero_points"))
        sizes = {"K": array.shape[0], "N": array.shape[1], "bits": self.bits}
        sizes |= {"block_size": self.block} | ({"accuracy_level": 4} if self.int8 else {})
        attributes = [ir.AttrInt64(name, size) for name, size in sizes.items()]
        made = writer.node(
            "MatMulNBits",
            inputs,
            node,
            product.name,
            label=f"{product.name}_Q{self.bits}",
            attributes=attributes,
            domain="com.microsoft",
        ).outputs[0]
        made.dtype = ir.DataType.from_numpy(array.dtype)
        result = with_bias(writer, node, made) if node.op_type == "Gemm" else made
        replace_output(node.outputs[0], result)
        assert node.graph is not None
        node.graph.remove(node, safe=True)

    def _packed(
        self, array: np.ndarray[Any, np.dtype[Any]], rounded: RoundedWeight | None
    ) -> PackedWeight:
        if self.method == "hqq":
            return half_quadratic(array, self.block)
        nearest = rounded or round_to_nearest(array, self._grid)
        return pack(nearest, self._grid, array.dtype)


@dataclass(frozen=True)
class _Product:
    """Product with a constant weight.

    Attributes:
        node: MatMul or Gemm.
        weight: (in, out), times the alpha of a Gemm.
        observable: true where its input is a tensor of the main graph, multiplied as it is, and no
            other product shares the weight.
    """

    node: ir.Node
    weight: Folded
    observable: bool

    @property
    def name(self) -> str:
        return self.node.name or ""


def _first_reason(model: Model, declined: Sequence[Declined]) -> str:
    """Return why the first product that has a constant weight stays float; else nothing."""
    names = {node.name for node in model.nodes() if node.op_type in {"MatMul", "Gemm"}}
    found = (d for d in declined if d.node in names and d.reason != COMPUTED)
    return next((f"{d.node!r} stays float: {d.reason}. " for d in found), "")


def _elsewhere(model: Model) -> str:
    """Return which pass quantizes what the model has instead of matrix products."""
    ops = {node.op_type for node in model.nodes()}
    if "LSTM" in ops:
        return "Use quantize-dynamic, which stores the weights of an LSTM in int8"
    if ops & {"Conv", "ConvTranspose"}:
        return "For convolutions use quantize-static, with --data"
    return "To store weights in fewer bytes use half"


def _products(writer: GraphWriter, excluded: set[str]) -> tuple[list[_Product], list[Declined]]:
    """Find products with constant 2-D weights, and reasons for the others."""
    found: list[_Product] = []
    declined: list[Declined] = []
    for node in writer.graph.all_nodes():
        if node.op_type not in _PRODUCTS or not is_onnx_op(node) or node.name in excluded:
            continue
        product = _product(writer, node)
        if isinstance(product, _Product):
            found.append(product)
        else:
            declined.append(Declined(node.name or "", product))
    return _without_float_readers(writer, found, declined), declined


def _product(writer: GraphWriter, node: ir.Node) -> _Product | str:
    """Return a product, or why it stays float."""
    if node.op_type not in {"MatMul", "Gemm"}:
        return f"MatMulNBits does not support {_PRODUCTS[node.op_type]}"
    x, value = pair(node)
    weight, reason = writer.float_weight(value, FLOAT32 | {np.dtype(np.float16)})
    if weight is None:
        return reason
    if weight.array.ndim != 2 or rank(x) == 1:
        return "its weight is not two-dimensional, or it multiplies a vector"
    if writer.constants.is_constant(x):
        return "both of its factors are constant"
    if node.op_type == "Gemm":
        weight = parts_of_gemm(node, weight).scaled
    straight = node.op_type == "MatMul" or not node.attributes.get_int("transA", 0)
    alone = len(value.uses()) == 1 and node.graph is writer.graph
    return _Product(node, weight, straight and alone)


def _without_float_readers(
    writer: GraphWriter, products: list[_Product], declined: list[Declined]
) -> list[_Product]:
    """Return the products whose weights nothing else reads: else a copy would be added."""
    while True:
        nodes = {product.node for product in products}
        reasons = {p.name: _float_reader(writer, p.node, nodes) for p in products}
        kept = [p for p in products if not reasons[p.name]]
        declined += [Declined(p.name, reasons[p.name]) for p in products if reasons[p.name]]
        if len(kept) == len(products):
            return kept
        products = kept


def _float_reader(writer: GraphWriter, product: ir.Node, products: set[ir.Node]) -> str:
    """Return why a weight stays in the file; "" where products alone read it."""
    for node, index in writer.constants.readers(pair(product)[1]):
        if node is None:
            return "its weight is an output of the model"
        if node not in products or index != 1:
            return f"its weight is read in float by {node.op_type} {node.name!r} as well"
    return ""
