"""The float model's constants, found for those of the int8 model whatever a tool named them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Floats32
from trimtab.core.model import Model

from ..quantization.qdq.fill_channels import filled_weight
from .constants import array_of

#: What quantizers append to the names of weights.
_SUFFIX = re.compile(
    r"(_as_floats?|_float|_integers|_quantized|_quant|_DequantizeLinear_Output|_DequantizeLinear|_dequantized|_Q4|#\d+)+$"
)
#: Least cosine of two weights that bear the same name, and of two that do not.
SAME_NAME, OTHER_NAME = 0.5, 0.95

Bounds = tuple[float, float]
NO_BOUNDS: Bounds = (-np.inf, np.inf)


class Partner:
    """Finds constants in a float model."""

    def __init__(self, baseline: Model) -> None:
        self._constants: dict[str, Floats32] = {}
        self._nodes = {node.name: node for node in baseline.graph if node.name}
        self._readers: dict[str, ir.Node] = {}
        self._twins: dict[ir.Node, ir.Node] = {}
        self._makers: dict[str, ir.Node] = {}
        for node in baseline.graph:
            self._makers.update({v.name: node for v in node.outputs if v.name})
            for value in node.inputs:
                array = array_of(value)
                if value is not None and value.name and array is not None and _is_float(array):
                    self._constants.setdefault(value.name, array.astype(np.float32, copy=False))
                    self._readers.setdefault(value.name, node)

    def weight(
        self, name: str, reader: ir.Node, position: int, rounded: Floats32
    ) -> Floats32 | None:
        """The float weight that a rounded one comes from.

        Args:
            name: of the rounded value.
            reader: the operator that reads it.
            position: at which input.
            rounded: as floats.
        """
        for known in (_SUFFIX.sub("", name), self._at(reader, position)):
            found = self._fitting(known, rounded, SAME_NAME)
            if found is not None:
                return self._paired(reader, known, found)
        closest = max(self._constants, key=lambda n: self._likeness(n, rounded), default="")
        found = self._fitting(closest, rounded, OTHER_NAME)
        return None if found is None else self._paired(reader, closest, found)

    def bias(self, name: str, reader: ir.Node, position: int, held: Floats32) -> Floats32 | None:
        """The float bias of the layer whose weight was found, zeros where it has none."""
        for known in (_SUFFIX.sub("", name), self._at(reader, position)):
            found = self._constants.get(known)
            if found is not None and found.shape == held.shape:
                return found
        twin = self._twins.get(reader)
        if twin is None or position < 2:
            return None
        other = twin.inputs[position] if len(twin.inputs) > position else None
        if other is None:
            return np.zeros_like(held)
        found = self._constants.get(other.name or "")
        return found if found is not None and found.shape == held.shape else None

    def same_name(self, name: str, held: NDArray[Any]) -> Floats32 | None:
        """The float constant of that name and shape."""
        found = self._constants.get(name)
        return found if found is not None and found.shape == held.shape else None

    def bounds(self, value: ir.Value, enforced: Bounds) -> Bounds | None:
        """How the float model bounds a tensor by a Relu or Clip that the int8 model lacks.

        Quantizers drop these operators where the integers bound the tensor alike.

        Args:
            value: the tensor, unrounded.
            enforced: what its integers can hold.

        Returns:
            The bounds, infinite where there are none; None where the tensor is not known.
        """
        own = value.producer()
        maker = self._makers.get(_SUFFIX.sub("", value.name or ""))
        if maker is not None and (own is None or own.op_type != maker.op_type):
            return _bounds(maker)
        twin = maker or (self._twins.get(own) if own is not None else None)
        if twin is None:
            return None
        uses = list(twin.outputs[0].uses())
        low, high = _bounds(uses[0].node) if len(uses) == 1 else NO_BOUNDS
        # The operator may well stand behind the quantizer: then its integers are not bounded so.
        return (low if enforced[0] >= low else -np.inf), (high if enforced[1] <= high else np.inf)

    def _paired(self, reader: ir.Node, name: str, found: Floats32) -> Floats32:
        self._twins[reader] = self._readers[name]
        return found

    def _at(self, reader: ir.Node, position: int) -> str:
        """Name of what the float model's node of the same name reads there."""
        node = self._nodes.get(reader.name or "")
        if node is None or node.op_type != reader.op_type or position >= len(node.inputs):
            return ""
        value = node.inputs[position]
        return (value.name or "") if value is not None else ""

    def _fitting(self, name: str, rounded: Floats32, least: float) -> Floats32 | None:
        found = self._constants.get(name)
        if found is None or self._likeness(name, rounded) < least:
            return None
        found = filled_weight(found, rounded.shape)
        return found if found.shape == rounded.shape else np.ascontiguousarray(found.T)

    def _likeness(self, name: str, rounded: Floats32) -> float:
        """Cosine of both, which no wrong scale of the whole changes."""
        found = filled_weight(self._constants[name], rounded.shape)
        if found.shape != rounded.shape:
            if found.ndim != 2 or found.shape != rounded.shape[::-1]:
                return -1.0
            found = found.T
        a, b = found.reshape(-1), rounded.reshape(-1)
        norm = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
        return float(a @ b) / norm if norm else float(not a.any() and not b.any())


def _bounds(node: ir.Node) -> Bounds:
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return NO_BOUNDS
    found = []
    for index, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        held = array_of(node.inputs[index]) if len(node.inputs) > index else None
        if name in node.attributes:
            found.append(node.attributes[name].as_float())
        else:
            found.append(default if held is None else float(held))
    return found[0], found[1]


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f"
