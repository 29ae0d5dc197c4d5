"""Dynamic int8: weights quantized ahead, activations while the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.target import Target

from ..base import Declined, Pass, Rewrite
from ..graph.patterns import match_nodes
from .int8_share import running_share
from .qdq.int8_rewrites import DYNAMIC_RULES, to_int8_forms
from .qdq.prepare import prepare
from .qdq.weight_placeholders import put_back
from .qdq.writer import finished, inferred, quiet


@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Quantize weights to int8 and activations while the model runs; needs no data.

    Right for transformers and recurrent networks. Convolutions stay float unless asked for:
    onnxruntime's ConvInteger is several times slower than its float convolution.

    Attributes:
        per_channel: one scale for each output channel of a weight.
        weight: integer type of weights; the target's where not given.
        convs: quantize convolutions too, which makes files smaller and inference slower.
        embeddings: store embedding tables in int8 too: a quarter of their size at the same speed.
        exclude: nodes to leave float, by name or glob pattern.
    """

    per_channel: bool = True
    weight: Literal["int8", "uint8"] | None = None
    convs: bool = False
    embeddings: bool = True
    exclude: tuple[str, ...] = ()

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Write the graph of integer operators and look at what really runs."""
        prepare(model)
        excluded = match_nodes(self.exclude, model.graph)
        # Excluded operators have to be found again by their names.
        forms = {} if excluded else to_int8_forms(model, DYNAMIC_RULES)
        declined = [Declined(name, "excluded by the user") for name in excluded]
        if not self.convs:
            declined += [
                Declined(node.name or "", "an integer convolution is slower than a float one")
                for node in model.nodes()
                if node.op_type == "Conv"
            ]
        written = self._quantize(model, ctx.target, excluded)
        share = running_share(written, model, ctx.target)
        report = {"forms": forms, **share.to_json()}
        return Rewrite(written, declined, report, loaded=not share.as_written)

    def _quantize(self, model: Model, target: Target, excluded: list[str]) -> ir.Model:
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
        from onnxruntime.quantization.quant_utils import QuantizationMode

        ops = ["MatMul", "Gemm", "Attention", "LSTM"]
        ops += ["Conv"] * self.convs + ["Gather"] * self.embeddings
        kind = self.weight or target.weight
        proto, stood_in = inferred(model, gemms=False)
        # The quantizer writes each Gemm as a MatMul first, under a name of its own.
        gemms = {node.name for node in model.graph if node.op_type == "Gemm"}
        renamed = [f"{name}_MatMul" for name in excluded if name in gemms]
        with quiet():
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
        written = finished(quantizer.model.model, model)
        put_back(written.graph, model, stood_in)
        return written
