"""Requirements of passes that read a float model."""

from __future__ import annotations

import onnx_ir as ir

from trimtab.core.errors import InputError
from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import INT8_OPS, QDQ_OPS

from .cleanup import inline_functions, normalize
from .edit import drop_weight_inputs
from .forms.raise_opset import raise_opset

#: First IR version whose initializers need not be inputs.
_CONSTANTS_IR_VERSION = 4
_PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_HINT = (
    "Give the float model that it was made from; compress-weights stores what is still float in "
    "8 bits"
)


def first_int8_node(model: Model) -> ir.Node | None:
    """Return the first int8 operator, or conversion to or from int8; None in a float model."""
    return next((n for n in model.nodes() if n.op_type in INT8_OPS | QDQ_OPS), None)


def refuse_quantized(model: Model, hint: str = _HINT) -> None:
    """Raise an error for a model that has int8 operators.

    Args:
        model: model to look at.
        hint: what to do instead.

    Raises:
        InputError: names the first such node.
    """
    node = first_int8_node(model)
    if node is not None:
        pairs = {n.op_type for n in model.nodes()} & (INT8_OPS | QDQ_OPS) <= _PAIRS
        raise InputError(
            f"is quantized already: node {node.name or node.outputs[0].name!r} is a {node.op_type}",
            where=model.name,
            hint=f"{hint}. `trimtab dequantize` makes a float model of this one" if pairs else hint,
        )


def refuse_integers(model: Model, hint: str = _HINT) -> None:
    """Raise an error for a model that computes with integers otherwise than by Q/DQ pairs.

    Args:
        model: model to look at.
        hint: what to do instead.

    Raises:
        InputError: names the first such node.
    """
    if any(n.op_type in (INT8_OPS | QDQ_OPS) - _PAIRS for n in model.nodes()):
        refuse_quantized(model, hint)


def prepare_float(model: Model) -> None:
    """Normalize a float model: constants as initializers, functions inlined, names for all nodes.

    Raises:
        InputError: the model is quantized already.
    """
    refuse_quantized(model)
    normalize(model.ir)


@gc_paused()
def with_constants(model: Model, opset: int) -> Model:
    """Return a float model of inlined functions, named nodes and weights that no caller feeds.

    Args:
        model: a clone, which may be changed.
        opset: lowest operator set; an older model is converted.

    Raises:
        InputError: the model is quantized already.
        ModelError: its operator set cannot be raised.
    """
    inline_functions(model.ir)
    model = raise_opset(model, opset)
    prepare_float(model)
    drop_weight_inputs(model.ir)
    model.ir.ir_version = max(model.ir.ir_version, _CONSTANTS_IR_VERSION)
    return model
