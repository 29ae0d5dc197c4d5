"""Dynamic int8: weights quantized ahead of time, activations while the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.target import Target

from ..base import Pass, Rewrite
from ..graph.declined import Declined
from ..graph.patterns import match_nodes
from .int8_share import measure_int8_share
from .qdq.int8_rewrites import DYNAMIC_RULES, apply_int8_rewrites
from .qdq.prepare import prepare
from .qdq.weight_placeholders import restore_weights
from .qdq.writer import from_quantizer_proto, silenced, to_quantizer_proto


@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Quantize weights to int8 and activations while the model runs; needs no data.

    Suitable for transformers and recurrent networks. Convolutions stay float unless asked for:
    onnxruntime's ConvInteger is several times slower than its float convolution.

    Attributes:
        per_channel: one scale for each output channel of a weight.
        weight: integer type of weights; the target's if not given.
        convs: quantize convolutions too, which makes files smaller and inference slower.
        embeddings: store embedding tables in int8 too, a quarter of the size at the same speed.
        exclude: nodes to leave float, by name or glob pattern.
    """

    per_channel: bool = True
    weight: Literal["int8", "uint8"] | None = None
    convs: bool = False
    embeddings: bool = True
    exclude: tuple[str, ...] = ()

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Write the graph of integer operators and measure what runs in int8."""
        prepare(model)
        excluded = match_nodes(self.exclude, model.graph)
        # Excluded operators have to be found again by their names.
        rewrites = {} if excluded else apply_int8_rewrites(model, DYNAMIC_RULES)
        declined = [Declined(name, "excluded by the user") for name in excluded]
        if not self.convs:
            declined += [
                Declined(node.name or "", "an integer convolution is slower than a float one")
                for node in model.nodes()
                if node.op_type == "Conv"
            ]
        written = self._quantize(model, ctx.target, excluded)
        share = measure_int8_share(written, model, ctx.target)
        report = {"forms": rewrites, **share.to_json()}
        return Rewrite(written, declined, report, loaded=not share.as_written)

    def _quantize(self, model: Model, target: Target, excluded: list[str]) -> ir.Model:
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
        from onnxruntime.quantization.quant_utils import QuantizationMode

        ops = ["MatMul", "Gemm", "Attention", "LSTM"]
        ops += ["Conv"] * self.convs + ["Gather"] * self.embeddings
        kind = self.weight or target.weight
        proto, placeholders = to_quantizer_proto(model, gemms=False)
        # The quantizer writes each Gemm as a MatMul first, under a name of its own.
        gemms = {node.name for node in model.graph if node.op_type == "Gemm"}
        renamed = [f"{name}_MatMul" for name in excluded if name in gemms]
        with silenced():
            quantizer = ONNXQuantizer(
                proto,
                self.per_channel,
                target.reduce_range,
                QuantizationMode.IntegerOps,
                False,  # noqa: FBT003 - not static
                QuantType.QInt8 if kind == "int8" else QuantType.QUInt8,
                QuantType.QUInt8,  # the only type that its kernels compute while running
                None,
                [],
                [*excluded, *renamed],
                ops,
                {"MatMulConstBOnly": True, "WeightSymmetric": True},
            )
            quantizer.quantize_model()
        written = from_quantizer_proto(quantizer.model.model, model)
        restore_weights(written.graph, model, placeholders)
        return written
