"""Dynamic int8: weights quantized ahead of time, activations while the model runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model
from trimtab.core.target import Target

from ..base import Rewrite
from ..graph.declined import Declined
from ..graph.forms.float32_form import has_products_of, to_float32
from ..graph.patterns import match_nodes
from ..graph.quantized import with_constants
from ..graph.shapes import infer_shapes
from .file_size import size_notes
from .int8_share import measure_int8_share
from .ort_dynamic import quantize_by_onnxruntime
from .qdq.dynamic_writer import DynamicScheme, Written, write_dynamic
from .qdq.float_ends import float_ends
from .qdq.int8_operators import PRODUCTS
from .qdq.int8_rewrites import DYNAMIC_RULES, apply_int8_rewrites
from .quantizer import Quantizer

#: First operator set with DynamicQuantizeLinear.
MINIMUM_OPSET = 11


@dataclass(frozen=True)
class QuantizeDynamic(Quantizer):
    """Quantize weights to int8 and activations while the model runs; needs no data.

    Suitable for transformers and recurrent networks. Convolutions stay float unless asked for:
    onnxruntime's ConvInteger is several times slower than its float convolution.

    Attributes:
        per_channel: one scale for each output channel of a weight.
        weight: integer type of weights; the target's if not given.
        convs: quantize convolutions too, which makes files smaller and inference slower.
        embeddings: store embedding tables in int8 too, a quarter of the size at the same speed.
        exclude: nodes to leave float, by name or glob pattern.
        all_int8: quantize what stays float by rule, too: spectra, the mean of a box's distances.
        backend: writer of the integer graph, trimtab's own or onnxruntime's quantizer.
    """

    shrinks: ClassVar[bool] = True

    per_channel: bool = True
    weight: Literal["int8", "uint8"] | None = None
    convs: bool = False
    embeddings: bool = True
    exclude: tuple[str, ...] = ()
    all_int8: bool = False
    backend: Literal["trimtab", "onnxruntime"] = "trimtab"

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Write the graph of integer operators and measure what runs in int8."""
        before = model.clone()
        model = with_constants(model, MINIMUM_OPSET)
        with gc_paused():
            infer_shapes(model.ir)
            for kind in (ir.DataType.FLOAT16, ir.DataType.DOUBLE):  # its kernels take float32
                if has_products_of(model.graph, kind):
                    to_float32(model.ir, kind)
        excluded = match_nodes(self.exclude, model.graph)
        declined = [Declined(name, "excluded by the user") for name in excluded]
        if not self.all_int8:
            kept = [(n, why) for n, why in float_ends(model.graph) if n.op_type in PRODUCTS]
            declined += [Declined(node.name or "", why) for node, why in kept]
            excluded = [*excluded, *(node.name for node, _ in kept if node.name)]
        # Excluded operators have to be found again by their names.
        rewrites = {} if excluded else apply_int8_rewrites(model, DYNAMIC_RULES)
        written, made = self._write(model, self._scheme(ctx.target, excluded))
        declined += made.declined
        if not made.operators:
            written, rewrites = before.ir, {}  # as it was: nothing done costs nothing
        share = measure_int8_share(written, model, ctx.target)
        report = {"forms": rewrites, **made.to_json(), **share.to_json()}
        report |= size_notes(before, dataclasses.replace(model, ir=written))
        return Rewrite(written, declined, report, loaded=not share.as_written)

    def _scheme(self, target: Target, excluded: Sequence[str]) -> DynamicScheme:
        return DynamicScheme(
            weight=self.weight or target.weight,
            per_channel=self.per_channel,
            reduce_range=target.reduce_range,
            convs=self.convs,
            embeddings=self.embeddings,
            exclude=excluded,
        )

    def _write(self, model: Model, scheme: DynamicScheme) -> tuple[ir.Model, Written]:
        if self.backend == "onnxruntime":
            return quantize_by_onnxruntime(model, scheme)
        written = write_dynamic(model, scheme)
        return model.ir, written
