"""Models of float16 or double for passes that compute with weights: in float32, and back again.

Sums and solutions need float32. A model of float16 in float32 is the same function, since each of
its numbers has both types; what a pass makes of it is rounded to float16 where the model was.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from trimtab.core.errors import ModelError
from trimtab.core.model import Model

from ..cleanup import normalize
from ..names import drop_suffix
from ..shapes import infer_shapes
from .float16_form import Converter, computes_float32, float32_reason
from .float32_form import drop_casts, has_products_of, to_float32

_HALF, _DOUBLE = ir.DataType.FLOAT16, ir.DataType.DOUBLE


@dataclass(frozen=True)
class Float32Form:
    """Float32 form of a model whose layers have weights of float16 or double.

    Attributes:
        model: model of float32, whose inputs and outputs keep their types.
        kind: type that it had.
        float32: names of the nodes that were float32 before.
    """

    model: Model
    kind: ir.DataType
    float32: Collection[str]

    @classmethod
    def of(cls, model: Model) -> Float32Form | None:
        """Write a copy in float32; None for a model that is, or of double that cannot be.

        Raises:
            ModelError: a model of float16 that cannot be written in float32.
        """
        form = model.clone()
        normalize(form.ir)
        kind = next((k for k in (_HALF, _DOUBLE) if has_products_of(form.graph, k)), None)
        if kind is None:
            return None
        infer_shapes(form.ir)
        float32 = {str(node.name) for node in form.nodes() if computes_float32(node)}
        if to_float32(form.ir, kind):
            return cls(form, kind, float32)
        if kind == _DOUBLE:
            return None
        raise ModelError(
            "has float16 weights, too coarse to compute new ones with, and operators of another "
            "library or sequences keep it from being written in float32",
            where=model.name,
            hint="Give the float32 model, and run `trimtab half` afterwards",
        )

    def back(self, made: ir.Model) -> None:
        """Write in float16, in place, what may be and was; what was double stays float32.

        Args:
            made: what a pass made of the form.
        """
        if self.kind != _HALF:
            return
        infer_shapes(made)
        opset = made.opset_imports.get("", 1)
        half = {
            node
            for node in made.graph.all_nodes()
            if computes_float32(node)
            and node.name not in self.float32
            and float32_reason(node, opset) is None
        }
        Converter(made.graph, half, opset).convert()
        for node in made.graph.all_nodes():  # at outputs of float16, which were cast from float32
            source = _cast_from_half(node.inputs[0]) if node.op_type == "Cast" else None
            if source is not None and node.outputs[0].dtype == _HALF:
                node.replace_input_with(0, source)
        drop_casts(made.graph, _HALF)
        common.RemoveUnusedNodesPass()(made)
        drop_suffix(made.graph, "_half")
        made.graph.sort()


def _cast_from_half(value: ir.Value | None) -> ir.Value | None:
    """Return the float16 value that a Cast makes a value of; None where it is none."""
    maker = None if value is None else value.producer()
    source = maker.inputs[0] if maker is not None and maker.op_type == "Cast" else None
    return source if source is not None and source.dtype == _HALF else None
