"""Removal of channels from a graph: constants are cut, and attributes that name lengths updated."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from trimtab.core.data import Array

from ...graph.concrete_shapes import infer_again
from ...graph.constants import constant_shape
from ...graph.edit import add_constant, add_tensor
from ..dependency.graph import DependencyGraph
from ..dependency.records import ConstantUse

#: Bytes of a weight in a file from which on it is cut when it is read, not in memory.
LAZY_BYTES = 1 << 20

Mask = NDArray[np.bool_]
Key = tuple[ir.Value, tuple[bytes | None, ...]]


def cut(graph: DependencyGraph, removed: list[int]) -> None:
    """Remove units from the model that a dependency graph was built on, in place.

    A constant that several operators read stays one where all of them lose the same, and is cloned
    where they do not.
    """
    keep = graph.keep(removed)
    model = graph.trace.model
    smaller: dict[Key, ir.Value] = {}
    for use in graph.trace.uses:
        if not keep.any(use.axes):
            continue
        masks = keep.masks(use.axes)
        key = (use.value, tuple(None if m is None else m.tobytes() for m in masks))
        if key not in smaller:
            smaller[key] = _smaller(model, use, masks)
        use.node.replace_input_with(use.index, smaller[key])
    for update in graph.trace.updates:
        update(model, keep)
    RemoveUnusedNodesPass()(model)
    infer_again(model)


def _smaller(model: ir.Model, use: ConstantUse, masks: list[Mask | None]) -> ir.Value:
    """Return the constant without the channels that go, as a new value."""
    name = str(use.value.name)
    if use.value.const_value is None:  # a ConstantOfShape: only its shape is stored
        return _smaller_filler(model, use, masks)
    tensor = use.value.const_value
    if not isinstance(tensor, ir.ExternalTensor | ir.LazyTensor) or tensor.nbytes < LAZY_BYTES:
        return add_constant(model, _compressed(tensor, masks), name)
    left = [n if m is None else int(m.sum()) for n, m in zip(tensor.shape, masks, strict=True)]
    later = ir.LazyTensor(
        lambda: ir.Tensor(_compressed(tensor, masks)), tensor.dtype, ir.Shape(left)
    )
    return add_tensor(model, later, name)


def _compressed(tensor: ir.TensorProtocol, masks: list[Mask | None]) -> Array:
    array = tensor.numpy()
    for axis, mask in enumerate(masks):
        if mask is not None:
            array = np.compress(mask, array, axis=axis)
    return np.asarray(array, order="C")


def _smaller_filler(model: ir.Model, use: ConstantUse, masks: list[Mask | None]) -> ir.Value:
    producer = use.value.producer()
    assert producer is not None
    old = constant_shape(use.value)
    new = [n if m is None else int(m.sum()) for n, m in zip(old, masks, strict=True)]
    shape = add_constant(model, np.array(new, np.int64), f"{use.value.name}_shape")
    kept = producer.attributes.values()
    filler = ir.Node("", "ConstantOfShape", [shape], kept, num_outputs=1, name=shape.name)
    filler.outputs[0].name = f"{shape.name}_filled"
    if use.value.dtype is not None:
        filler.outputs[0].dtype = use.value.dtype
    model.graph.insert_after(producer, filler)
    return filler.outputs[0]
