"""Constants, shapes, ranges, types, and dropout."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from trimtab.core.model import Model

from .table import NodeSpec, Run, op, register_functions

DTYPES: dict[int, torch.dtype] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.INT8: torch.int8,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.BOOL: torch.bool,
}


def to_tensor(tensor: ir.TensorProtocol) -> Tensor:
    """Convert a tensor of the graph to torch, with its own memory.

    Types that torch lacks, such as 4-bit and unsigned 16-bit integers, become int32.
    """
    array = tensor.numpy()
    if tensor.dtype == ir.DataType.BFLOAT16:
        return torch.from_numpy(array.astype("float32")).to(torch.bfloat16)
    if tensor.dtype not in DTYPES:
        return torch.from_numpy(array.astype("int32"))
    return torch.from_numpy(array.copy(order="C"))


def initializer_tensor(model: Model, name: str) -> Tensor:
    """Convert an initializer to torch."""
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return to_tensor(tensor)


@op("Constant")
def constant(spec: NodeSpec) -> Run:
    """Return a constant tensor, number or list."""
    ((name, value),) = spec.attributes.items()
    if name not in {"value", "value_float", "value_floats", "value_int", "value_ints"}:
        raise spec.refuse("a constant of text or sparse values")
    dtype = torch.float32 if name.startswith("value_float") else torch.int64
    made = to_tensor(value) if name == "value" else torch.tensor(value, dtype=dtype)
    return lambda: made


@op("ConstantOfShape", host=(0,), to_host=True)
def constant_of_shape(spec: NodeSpec) -> Run:
    """Fill a shape with one value, by default a float zero."""
    value = to_tensor(spec.get("value")) if "value" in spec.attributes else torch.zeros(1)
    return lambda shape: value.reshape(()).repeat(shape.tolist())


@op("Shape", to_host=True)
def shape(spec: NodeSpec) -> Run:
    """Return all sizes, or those from `start` to `end`."""
    start, end = spec.get("start", 0), spec.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


@op("Size", to_host=True)
def size(spec: NodeSpec) -> Run:  # noqa: ARG001
    """Return the number of elements."""
    return lambda x: torch.tensor(x.numel())


@op("Range", host=(0, 1, 2), to_host=True)
def range_(spec: NodeSpec) -> Run:  # noqa: ARG001
    """Count from start to limit in steps of delta, in their type."""
    return lambda *ends: torch.arange(*(end.item() for end in ends), dtype=ends[0].dtype)


@op("Cast")
def cast(spec: NodeSpec) -> Run:
    """Convert to another type."""
    kind = ir.DataType(spec.get("to"))
    if kind not in DTYPES:
        raise spec.refuse(f"to {kind.name}")
    dtype = DTYPES[kind]
    return lambda x: x.to(dtype)


register_functions({"CastLike": lambda x, like: x.to(like.dtype), "Identity": lambda x: x})


@op("Dropout")
def dropout(spec: NodeSpec) -> Run:
    """Drop elements in training, at the graph's rate or that of the mode.

    Srivastava et al., "Dropout", 2014.
    """
    if spec.uses(1):
        raise spec.refuse("its mask is used")
    known = spec.constants.get(1)
    rate = float(known.item()) if known is not None else spec.get("ratio", 0.5)
    mode = spec.mode

    def run(x: Tensor, *_: Tensor) -> Tensor:
        chosen = rate if mode.dropout is None else mode.dropout
        return functional.dropout(x, chosen) if mode.training and chosen else x

    return run
