"""Requirements on a graph before quantization, and the small changes that fulfil them."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from trimtab.core.errors import ModelError
from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model

from ...graph.edit import drop_weight_inputs
from ...graph.forms.full_axes import spell_out_axes
from ...graph.forms.raise_opset import raise_opset
from ...graph.quantized import prepare_float, refuse_quantized
from ...graph.shapes import infer_shapes
from ...graph.stored.weight_lift import lift_weights
from .int8_operators import PRODUCTS

#: First operator set in which DequantizeLinear has an axis.
MINIMUM_OPSET = 13
#: First operator set whose Q/DQ pairs onnxruntime runs on float16.
HALF_OPSET = 21


@gc_paused()
def prepare(model: Model) -> None:
    """Prepare the graph of a clone: raise its opset, lift weights, name nodes, infer shapes.

    Raises:
        InputError: the model is quantized already.
        ModelError: its opset is too old and cannot be raised, or too old for float16.
    """
    refuse_quantized(model)
    InlinePass()(model.ir)
    _raise_opset(model)
    prepare_float(model)
    halves = [w for w in model.graph.initializers.values() if w.dtype == ir.DataType.FLOAT16]
    if halves and model.opset < HALF_OPSET and not _becomes_float(model.graph, halves):
        raise ModelError(
            f"has float16 weights, which Q/DQ take from opset {HALF_OPSET} on, not {model.opset}",
            where=f"{model.name}, tensor {halves[0].name!r}",
            hint="Quantize the float32 model: int8 gains nothing from float16 before it",
        )
    drop_weight_inputs(model.ir)
    lift_weights(model.ir, PRODUCTS | {"ConvTranspose"})
    infer_shapes(model.ir)
    spell_out_axes(model.ir)


def _raise_opset(model: Model) -> None:
    made = raise_opset(model, MINIMUM_OPSET)
    model.ir.graph, model.ir.ir_version = made.ir.graph, made.ir.ir_version


def _becomes_float(graph: ir.Graph, halves: list[ir.Value]) -> bool:
    """Return whether all of these weights are cast to other types before anything uses them."""
    return all(
        node.op_type == "Cast" and node.graph is graph
        for value in halves
        for node, _ in value.uses()
    )
