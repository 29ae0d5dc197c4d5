"""The float model that a Q/DQ model was made from, and the layers both share."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from trimtab.core.errors import InputError, OptionError
from trimtab.core.model import Model

from ...graph.stored.weight_scales import channel_axis
from .int8_rewrites import apply_int8_rewrites
from .prepare import prepare

#: Nodes by name.
NodesByName = dict[str | None, ir.Node]


def load_reference(path: str, pass_name: str) -> Model:
    """Load the float model for the pass of this name, prepared as for quantization.

    Raises:
        OptionError: the path is empty.
        ModelError: the file cannot be used.
    """
    if not path:
        raise OptionError(
            "needs the float model that the int8 model was made from",
            where=pass_name,
            hint="Give --reference FLOAT.onnx",
        )
    return prepare_reference(Model.load(Path(path)))


def prepare_reference(model: Model) -> Model:
    """Return a copy of the float model, prepared as for quantization."""
    reference = model.clone()
    prepare(reference)
    apply_int8_rewrites(reference)
    return reference


def shared_layers(
    model: Model, reference: Model, *, also: frozenset[str] = frozenset()
) -> tuple[list[ir.Node], NodesByName]:
    """Return the Q/DQ model's layers named like a node of the float one, and the latter's by name.

    Layers are Conv, Gemm, MatMul and operators of the types in `also`.

    Raises:
        InputError: the model has no layer, or shares none with the reference.
    """
    reference_nodes = {node.name: node for node in reference.graph}
    found = [n for n in model.graph if channel_axis(n) is not None or n.op_type in also]
    if not found:
        raise InputError(
            "has no Conv, Gemm or MatMul outside of subgraphs",
            where=model.name,
            hint="There is nothing to correct in it",
        )
    layers = [node for node in found if node.name in reference_nodes]
    if not layers:
        raise InputError(
            "shares no layer with its reference by name",
            where=model.name,
            hint="Give the float model that this one was quantized from, as it was then",
        )
    return layers, reference_nodes
