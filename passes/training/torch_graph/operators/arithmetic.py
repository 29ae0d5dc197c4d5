"""Broadcasting functions of two or more operands, comparisons, and indexing."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .table import NodeSpec, Run, op, register_functions


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """Divide; integers are truncated towards zero, as in C."""
    if a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


register_functions(
    {
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Div": _divide,
        "Pow": lambda a, b: torch.pow(a, b).to(a.dtype),  # in the type of the base
        "Equal": torch.eq,
        "Less": torch.lt,
        "Greater": torch.gt,
        "LessOrEqual": torch.le,
        "GreaterOrEqual": torch.ge,
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Xor": torch.logical_xor,
        "Where": lambda c, a, b: torch.where(c.bool(), a, b),
    }
)


@op("Mod")
def mod(spec: NodeSpec) -> Run:
    """Return the remainder with the sign of the divisor, or of the dividend for `fmod`."""
    return torch.fmod if spec.get("fmod", 0) else torch.remainder


@op("Min", "Max", "Sum", "Mean")
def variadic(spec: NodeSpec) -> Run:
    """Reduce any number of operands."""
    join = {"Min": torch.minimum, "Max": torch.maximum}.get(spec.op, torch.add)
    mean = spec.op == "Mean"

    def run(*x: Tensor) -> Tensor:
        made = functools.reduce(join, x)
        return made / len(x) if mean else made

    return run


@op("Gather")
def gather(spec: NodeSpec) -> Run:
    """Select slices by index; negative ones count from the end."""
    axis = spec.get("axis", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        size = x.shape[axis]
        if index.ndim == 0:
            return x.select(axis, int(index.item()) % size if size else 0)
        flat = index.reshape(-1).long()
        flat = torch.where(flat < 0, flat + size, flat)
        place = axis % x.ndim
        picked = x.index_select(place, flat)
        return picked.reshape(*x.shape[:place], *index.shape, *x.shape[place + 1 :])

    return run


@op("GatherElements")
def gather_elements(spec: NodeSpec) -> Run:
    """Select one element along an axis for each element of the index."""
    axis = spec.get("axis", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        index = torch.where(index < 0, index + x.shape[axis], index).long()
        # The other axes of the index may be shorter, in ONNX as in torch.
        return torch.gather(x, axis, index)

    return run


@op("GatherND")
def gather_nd(spec: NodeSpec) -> Run:
    """Select slices by tuples of indices, along the last axis of the index."""
    if spec.get("batch_dims", 0):
        raise spec.refuse("batch_dims above 0")
    return lambda x, index: x[tuple(index.long().unbind(-1))]


@op("CumSum", host=(1,))
def cumsum(spec: NodeSpec) -> Run:
    """Sum cumulatively along an axis."""
    exclusive, reverse = spec.get("exclusive", 0), spec.get("reverse", 0)

    def run(x: Tensor, axis: Tensor) -> Tensor:
        dim = int(axis.item())
        x = x.flip(dim) if reverse else x
        sums = x.cumsum(dim).to(x.dtype)
        sums = sums - x if exclusive else sums
        return sums.flip(dim) if reverse else sums

    return run


@op("Trilu", host=(1,))
def trilu(spec: NodeSpec) -> Run:
    """Keep the upper or lower triangle of the last two axes."""
    cut = torch.triu if spec.get("upper", 1) else torch.tril
    return lambda x, k=None: cut(x, int(k.item()) if k is not None else 0)


@op("ArgMax", "ArgMin")
def arg_extreme(spec: NodeSpec) -> Run:
    """Return the position of the largest or smallest element, without a gradient."""
    pick = torch.argmax if spec.op == "ArgMax" else torch.argmin
    axis, keep = spec.get("axis", 0), bool(spec.get("keepdims", 1))
    if spec.get("select_last_index", 0):
        raise spec.refuse("select_last_index")
    return lambda x: pick(x, dim=axis, keepdim=keep)
