"""Constants, shapes, ranges, types, and dropout."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from .operators import NodeSpec, Run, op

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


@op("Constant")
def constant(spec: NodeSpec) -> Run:
    """Return a constant tensor, number or list."""
    kinds = {"value_float": torch.float32, "value_floats": torch.float32}
    kinds |= {"value_int": torch.int64, "value_ints": torch.int64}
    if "value" in spec.attributes:
        made = to_tensor(spec.get("value"))
        return lambda: made
    for name, dtype in kinds.items():
        if name in spec.attributes:
            made = torch.tensor(spec.get(name), dtype=dtype)
            return lambda: made
    raise spec.refuse("a constant of text or sparse values")


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

    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)

    return run


@op("Cast")
def cast(spec: NodeSpec) -> Run:
    """Convert to another type."""
    kind = ir.DataType(spec.get("to"))
    if kind not in DTYPES:
        raise spec.refuse(f"to {kind.name}")
    dtype = DTYPES[kind]
    return lambda x: x.to(dtype)


@op("CastLike")
def cast_like(spec: NodeSpec) -> Run:  # noqa: ARG001
    """Convert to the type of another tensor."""
    return lambda x, like: x.to(like.dtype)


@op("Identity")
def identity(spec: NodeSpec) -> Run:  # noqa: ARG001
    """Return the input unchanged."""
    return lambda x: x


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
