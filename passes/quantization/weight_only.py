"""Weights of 4 or 8 bits in blocks; activations stay float or are quantized while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import onnx
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, MissingExtraError, OptionError
from trimtab.core.model import Model

from ..base import Pass, Rewrite
from ..graph.declined import Declined
from ..graph.edit import add_initializer, initializer_array, remove_unused_initializers
from ..graph.gemm import gemms_to_products
from ..graph.patterns import match_nodes
from ..graph.quantized import prepare_float
from ..graph.queries import pair
from .algorithms.gptq import RoundingGrid, round_products, write_rounded
from .qdq.writer import silenced, to_whole_proto

#: Block sizes that the kernels support.
BLOCKS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class QuantizeWeights(Pass):
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
        data: calibration data for gptq; the context's if not given.
        samples: number of samples.
    """

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
        prepare_float(model)
        gemms_to_products(model.graph)
        excluded = match_nodes(self.exclude, model.graph)
        declined = [Declined(name, "excluded by the user") for name in excluded]
        products, others = _products(model.graph, set(excluded))
        declined += others
        if not products:
            raise DataError(
                "has no matrix product with a constant weight",
                where=model.name,
                hint="For convolutions use quantize-static",
            )
        report: dict[str, Any] = {"products": len(products)}
        grid, rounded = RoundingGrid(self.bits, self.block, self.symmetric), {}
        if self.method == "gptq":
            data = ctx.dataset(self.data, model, purpose="gptq").take(self.samples)
            rounded = round_products(model, products, data, grid, ctx)
        before = model.weight_bytes
        for node in ctx.progress.track(products, "rounding weights", len(products)):
            _replace(model.graph, node, self._quantize(model, node))
        remove_unused_initializers(model.graph)
        model.graph.opset_imports.setdefault("com.microsoft", 1)
        if rounded:
            report["compensated"] = write_rounded(model.graph, rounded, grid)
        report |= {"weight_bytes_before": before, "weight_bytes": model.weight_bytes}
        return Rewrite(model.ir, declined, report)

    def _quantize(self, model: Model, product: ir.Node) -> ir.Graph:
        """Quantize a product in a graph of its own: only its own weight is in memory."""
        from onnxruntime.quantization import matmul_nbits_quantizer as tool

        size = {"block_size": self.block, "bits": self.bits}
        options = {**size, "is_symmetric": self.symmetric, "accuracy_level": 4 if self.int8 else 0}
        config: Any = tool.DefaultWeightOnlyQuantConfig(**options)
        if self.method == "hqq":
            config = tool.HQQWeightOnlyQuantConfig(**size)
        with silenced():
            try:
                alone = _alone(model, product)
                quantizer = tool.MatMulNBitsQuantizer(alone, **options, algo_config=config)
                quantizer.process()
            except ModuleNotFoundError as error:
                raise MissingExtraError(
                    f"method {self.method!r} needs {error.name}", extra="torch"
                ) from error
        graph: ir.Graph = ir.from_proto(quantizer.model.model).graph
        return graph


def _alone(model: Model, product: ir.Node) -> onnx.ModelProto:
    """Return the product as a model of its own with its weight."""
    part = ir.convenience.extract(model.graph, [pair(product)[0]], product.outputs)
    return to_whole_proto(Model(ir.Model(part, ir_version=model.ir.ir_version), name=model.name))


def _replace(graph: ir.Graph, product: ir.Node, alone: ir.Graph) -> None:
    """Replace a product by the operator of a graph of its own, with its constants."""
    quantized = alone[0]
    inputs = [product.inputs[0]]
    for value in quantized.inputs[1:]:
        assert value is not None
        if value.name not in graph.initializers:  # else another product shares the weight
            # A copy, as a tensor of a proto keeps the whole proto in memory, with the old weight.
            add_initializer(graph, str(value.name), initializer_array(value).copy())
        inputs.append(graph.initializers[str(value.name)])
    attributes = [a for a in quantized.attributes.values() if isinstance(a, ir.Attr)]
    node = ir.Node(
        quantized.domain, quantized.op_type, inputs, attributes, num_outputs=1, name=quantized.name
    )
    old, new = product.outputs[0], node.outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    graph.insert_before(product, node)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(product, safe=True)


def _products(graph: ir.Graph, excluded: set[str]) -> tuple[list[ir.Node], list[Declined]]:
    """Find products of the main graph with constant 2-D weights, and reasons for the others."""
    nodes = [n for n in graph if n.op_type in {"MatMul", "Conv"} and n.name not in excluded]
    reasons = {node: _reason(node) for node in nodes}
    declined = [Declined(node.name or "", reason) for node, reason in reasons.items() if reason]
    return [node for node in nodes if not reasons[node]], declined


def _reason(node: ir.Node) -> str:
    if node.op_type == "Conv":
        return "MatMulNBits does not support convolutions"
    tensor = pair(node)[1].const_value
    if tensor is None:
        return "its weight is computed while the model runs"
    if len(tensor.shape) != 2:
        return "its weight is not two-dimensional"
    if tensor.dtype not in {ir.DataType.FLOAT, ir.DataType.FLOAT16}:
        return "its weight is not float"
    return "" if tensor.size else "its weight is empty"
