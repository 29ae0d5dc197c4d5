"""Requirements on a graph before quantization, and the small changes that fulfil them."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from trimtab.core.errors import ModelError
from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model

from ...graph.cleanup import normalize
from ...graph.edit import drop_weight_inputs
from ...graph.forms.float32_form import has_products_of, to_float32
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

    Of double, and of float16 in an old opset, it is written in float32.

    Raises:
        InputError: the model is quantized already.
        ModelError: its opset is too old and cannot be raised, or it is one of float16 that cannot
            be written in float32.
    """
    refuse_quantized(model)
    InlinePass()(model.ir)
    _raise_opset(model)
    prepare_float(model)
    half = _first_half(model.graph) if model.opset < HALF_OPSET else None
    if half is not None and not write_in_float32(model, ir.DataType.FLOAT16):
        raise ModelError(
            f"has float16 weights, which Q/DQ take from opset {HALF_OPSET} on, not {model.opset}, "
            "and cannot be written in float32",
            where=f"{model.name}, tensor {half.name!r}",
            hint="Quantize the float32 model: int8 gains nothing from float16 before it",
        )
    if has_products_of(model.graph, ir.DataType.DOUBLE):
        write_in_float32(model, ir.DataType.DOUBLE)
    drop_weight_inputs(model.ir)
    lift_weights(model.ir, PRODUCTS | {"ConvTranspose"})
    infer_shapes(model.ir)
    spell_out_axes(model.ir)


def write_in_float32(model: Model, kind: ir.DataType) -> bool:
    """Write a model of float16 or double in float32, in place; return whether it could be."""
    infer_shapes(model.ir)  # the types of inner tensors
    return to_float32(model.ir, kind)


def without_double(model: Model) -> Model:
    """Return a float model whose layers compute in double in float32; any other itself.

    Raises:
        InputError: it is quantized already.
    """
    refuse_quantized(model)
    copy = model.clone()
    normalize(copy.ir)
    if not has_products_of(copy.graph, ir.DataType.DOUBLE):
        return model
    return copy if write_in_float32(copy, ir.DataType.DOUBLE) else model


def _raise_opset(model: Model) -> None:
    made = raise_opset(model, MINIMUM_OPSET)
    model.ir.graph, model.ir.ir_version = made.ir.graph, made.ir.ir_version


def _first_half(graph: ir.Graph) -> ir.Value | None:
    """Return the first float16 weight, unless all are cast before anything uses them."""
    halves = [w for w in graph.initializers.values() if w.dtype == ir.DataType.FLOAT16]
    cast = all(
        node.op_type == "Cast" and node.graph is graph
        for value in halves
        for node, _ in value.uses()
    )
    return None if cast else halves[0]
