"""Requirements on a graph before quantization, and the small changes that fulfil them.

onnxruntime's quantizer finds nodes by name, treats a weight in a Constant node as an activation,
and cannot quantize per channel below opset 13.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from trimtab.core.errors import ModelError
from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model

from ...graph.quantized import prepare_float

#: First operator set in which DequantizeLinear has an axis.
MINIMUM_OPSET = 13
#: First operator set whose Q/DQ pairs onnxruntime runs on float16.
HALF_OPSET = 21


@gc_paused()
def prepare(model: Model) -> None:
    """Prepare the graph of a clone: lift Constants, name nodes, infer shapes.

    Raises:
        InputError: the model is quantized already.
        ModelError: its opset is too old, for float32 or for float16.
    """
    prepare_float(model)
    if model.opset < MINIMUM_OPSET:
        raise ModelError(
            f"has opset {model.opset}; int8 weights per channel need {MINIMUM_OPSET}",
            where=model.name,
            hint="Run the pass simplify first: it raises the opset",
        )
    halves = [w for w in model.graph.initializers.values() if w.dtype == ir.DataType.FLOAT16]
    if halves and model.opset < HALF_OPSET:
        raise ModelError(
            f"has float16 weights, which Q/DQ take from opset {HALF_OPSET} on, not {model.opset}",
            where=f"{model.name}, tensor {halves[0].name!r}",
            hint="Quantize the float32 model: int8 gains nothing from float16 before it",
        )
    # Old files list weights as inputs too; the quantizer drops such a weight and keeps the input.
    weights = model.graph.initializers
    kept = [value for value in model.graph.inputs if value.name not in weights]
    if len(kept) < len(model.graph.inputs):
        model.graph.inputs[:] = kept
    ShapeInferencePass()(model.ir)
