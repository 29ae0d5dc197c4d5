"""Conversion of a model to a newer operator set, for passes whose operators need one."""

from __future__ import annotations

import dataclasses

import onnx

from trimtab.core.errors import ModelError
from trimtab.core.maps import from_proto
from trimtab.core.model import EXTERNAL_DATA_BYTES, Model

from ..cleanup import inline_functions, restore_interface
from ..edit import drop_weight_inputs
from .opsets import convert_opset


def raise_opset(model: Model, lowest: int) -> Model:
    """Return the model in an operator set of at least `lowest`; itself where it has one already.

    Raises:
        ModelError: ONNX's version converter cannot convert it.
    """
    if model.opset >= lowest:
        return model
    advice = "Export the model anew, with a newer operator set"
    if model.weight_bytes > EXTERNAL_DATA_BYTES:
        text = f"has opset {model.opset}, {lowest} is needed, and too many weights to be converted"
        raise ModelError(text, where=model.name, hint=advice)
    plain = dataclasses.replace(model.clone(), lineage=())
    inline_functions(plain.ir)
    drop_weight_inputs(plain.ir)
    proto = plain.to_proto()
    try:
        converted = convert_opset(proto, lowest)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        line = (str(error).strip().splitlines() or ["?"])[0][:200]
        text = f"has opset {model.opset}, {lowest} is needed, and ONNX cannot convert it: {line}"
        raise ModelError(text, where=model.name, hint=advice) from error
    made = from_proto(converted)
    restore_interface(made, model.ir)
    return dataclasses.replace(model, ir=made)
