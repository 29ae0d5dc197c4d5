"""Matching of an int8 model's constants to the float baseline's, whatever a tool named them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Floats32
from trimtab.core.graphs import constant_array
from trimtab.core.model import Model

from ..graph.queries import input_at
from ..quantization.qdq.fill_channels import filled_weight

#: Suffixes that quantizers append to the names of tensors.
_SUFFIX = re.compile(
    r"(_as_floats?|_float|_integers|_quantized|_quant|_DequantizeLinear_Output|_DequantizeLinear|_dequantized|_Q4|_Q8|#\d+)+$"
)
#: Smallest cosine of matching weights with the same name, and with different names.
SAME_NAME, OTHER_NAME = 0.5, 0.95

Bounds = tuple[float, float]
NO_BOUNDS: Bounds = (-np.inf, np.inf)


def float_name(name: str) -> str:
    """Return the name that a tensor has in the float model."""
    return _SUFFIX.sub("", name)


class BaselineMatcher:
    """Matcher of constants to those of a float model."""

    def __init__(self, baseline: Model) -> None:
        self._constants: dict[str, Floats32] = {}
        self._nodes = {node.name: node for node in baseline.graph if node.name}
        self._readers: dict[str, ir.Node] = {}
        self._counterparts: dict[ir.Node, ir.Node] = {}
        self._producers: dict[str, ir.Node] = {}
        for node in baseline.graph:
            self._producers.update({v.name: node for v in node.outputs if v.name})
            for value in node.inputs:
                array = constant_array(value)
                if array is not None and array.dtype.kind == "f" and value and value.name:
                    self._constants.setdefault(value.name, array.astype(np.float32, copy=False))
                    self._readers.setdefault(value.name, node)

    def weight(
        self, name: str, reader: ir.Node, position: int, rounded: Floats32
    ) -> Floats32 | None:
        """Find the float weight that a rounded one, read at this input, comes from."""
        for known in (float_name(name), self._at(reader, position)):
            found = self._similar(known, rounded, SAME_NAME)
            if found is not None:
                return self._matched(reader, known, found)
        closest = max(self._constants, key=lambda n: self._similarity(n, rounded), default="")
        found = self._similar(closest, rounded, OTHER_NAME)
        return None if found is None else self._matched(reader, closest, found)

    def bias(self, name: str, reader: ir.Node, position: int, stored: Floats32) -> Floats32 | None:
        """Find the float bias of the layer whose weight was matched, zeros where it has none."""
        for known in (float_name(name), self._at(reader, position)):
            found = self.same_name(known, stored)
            if found is not None:
                return found
        counterpart = self._counterparts.get(reader)
        if counterpart is None or position < 2:
            return None
        other = input_at(counterpart, position)
        return np.zeros_like(stored) if other is None else self.same_name(other.name or "", stored)

    def same_name(self, name: str, stored: NDArray[Any]) -> Floats32 | None:
        """Return the float constant of that name and shape."""
        found = self._constants.get(name)
        return found if found is not None and found.shape == stored.shape else None

    def bounds(self, value: ir.Value, enforced: Bounds) -> Bounds | None:
        """Find the bounds of a Relu or Clip of the float model that the int8 model lacks.

        Quantizers drop these operators where integers have the same bounds.

        Args:
            value: tensor before rounding.
            enforced: range of its integers.

        Returns:
            The bounds, infinite where there are none; None for an unknown tensor.
        """
        own = value.producer()
        producer = self._producers.get(float_name(value.name or ""))
        if producer is not None and (own is None or own.op_type != producer.op_type):
            return _bounds(producer)
        counterpart = producer or (self._counterparts.get(own) if own is not None else None)
        if counterpart is None:
            return None
        uses = list(counterpart.outputs[0].uses())
        low, high = _bounds(uses[0].node) if len(uses) == 1 else NO_BOUNDS
        # The operator may follow the quantizer, whose integers are not bounded then.
        return (low if enforced[0] >= low else -np.inf), (high if enforced[1] <= high else np.inf)

    def _matched(self, reader: ir.Node, name: str, found: Floats32) -> Floats32:
        self._counterparts[reader] = self._readers[name]
        return found

    def _at(self, reader: ir.Node, position: int) -> str:
        """Return the name of that input of the float model's node of the same name."""
        node = self._nodes.get(reader.name or "")
        if node is None or node.op_type != reader.op_type:
            return ""
        value = input_at(node, position)
        return (value.name or "") if value is not None else ""

    def _similar(self, name: str, rounded: Floats32, least: float) -> Floats32 | None:
        found = self._constants.get(name)
        if found is None or self._similarity(name, rounded) < least:
            return None
        found = filled_weight(found, rounded.shape)
        return found if found.shape == rounded.shape else np.ascontiguousarray(found.T)

    def _similarity(self, name: str, rounded: Floats32) -> float:
        """Return the cosine of both, which no wrong scale of the whole changes."""
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
    low, high = (constant_array(input_at(node, i)) for i in (1, 2))
    return (
        node.attributes.get_float("min", -np.inf if low is None else float(low)),
        node.attributes.get_float("max", np.inf if high is None else float(high)),
    )
