"""Where values come from: constants, shapes, ranges, types."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from .table import Run, Site, op

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
    """A tensor of the graph as one of torch, in memory of its own.

    Types that torch lacks, such as 4-bit and unsigned 16-bit integers, become int32.
    """
    array = tensor.numpy()
    if tensor.dtype == ir.DataType.BFLOAT16:
        return torch.from_numpy(array.astype("float32")).to(torch.bfloat16)
    if tensor.dtype not in DTYPES:
        return torch.from_numpy(array.astype("int32"))
    return torch.from_numpy(array.copy(order="C"))


@op("Constant")
def constant(site: Site) -> Run:
    """A tensor, or one of the short forms."""
    kinds = {"value_float": torch.float32, "value_floats": torch.float32}
    kinds |= {"value_int": torch.int64, "value_ints": torch.int64}
    if "value" in site.attributes:
        made = to_tensor(site.get("value"))
        return lambda: made
    for name, dtype in kinds.items():
        if name in site.attributes:
            made = torch.tensor(site.get(name), dtype=dtype)
            return lambda: made
    raise site.refuse("a constant of text or sparse values")


@op("ConstantOfShape", host=(0,), to_host=True)
def constant_of_shape(site: Site) -> Run:
    """One value in a shape; a float zero where none is given."""
    value = to_tensor(site.get("value")) if "value" in site.attributes else torch.zeros(1)
    return lambda shape: value.reshape(()).repeat(shape.tolist())


@op("Shape", to_host=True)
def shape(site: Site) -> Run:
    """Sizes, all or those from `start` to `end`."""
    start, end = site.get("start", 0), site.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


@op("Size", to_host=True)
def size(site: Site) -> Run:  # noqa: ARG001
    """Number of elements."""
    return lambda x: torch.tensor(x.numel())


@op("Range", host=(0, 1, 2), to_host=True)
def range_(site: Site) -> Run:  # noqa: ARG001
    """From start to limit in steps of delta, in their type."""

    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)

    return run


@op("Cast")
def cast(site: Site) -> Run:
    """To another type."""
    kind = ir.DataType(site.get("to"))
    if kind not in DTYPES:
        raise site.refuse(f"to {kind.name}")
    dtype = DTYPES[kind]
    return lambda x: x.to(dtype)


@op("CastLike")
def cast_like(site: Site) -> Run:  # noqa: ARG001
    """To the type of another tensor."""
    return lambda x, like: x.to(like.dtype)


@op("Identity")
def identity(site: Site) -> Run:  # noqa: ARG001
    """As it is."""
    return lambda x: x


@op("Dropout")
def dropout(site: Site) -> Run:
    """At work while the module trains, at the graph's rate or at the one that is set.

    Srivastava et al., "Dropout", 2014.
    """
    if site.reads(1):
        raise site.refuse("its mask is used")
    known = site.constants.get(1)
    rate = float(known.item()) if known is not None else site.get("ratio", 0.5)
    mode = site.mode

    def run(x: Tensor, *_: Tensor) -> Tensor:
        chosen = rate if mode.dropout is None else mode.dropout
        return functional.dropout(x, chosen) if mode.training and chosen else x

    return run
