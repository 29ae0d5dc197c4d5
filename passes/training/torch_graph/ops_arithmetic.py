"""Functions of two or more operands that broadcast, and comparisons."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from .table import Run, Site, op


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """Integers are cut towards zero, as in C."""
    if a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def _power(a: Tensor, b: Tensor) -> Tensor:
    """The result has the type of the base."""
    return torch.pow(a, b).to(a.dtype)


_TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": _divide,
    "Pow": _power,
    "Equal": torch.eq,
    "Less": torch.lt,
    "Greater": torch.gt,
    "LessOrEqual": torch.le,
    "GreaterOrEqual": torch.ge,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}


@op(*_TWO)
def two(site: Site) -> Run:
    """No attributes since opset 7."""
    return _TWO[site.op]


@op("Mod")
def mod(site: Site) -> Run:
    """With the sign of the divisor, or of the dividend where `fmod` is set."""
    return torch.fmod if site.get("fmod", 0) else torch.remainder


@op("Min", "Max", "Sum", "Mean")
def many(site: Site) -> Run:
    """Any number of operands."""
    join = {"Min": torch.minimum, "Max": torch.maximum}.get(site.op, torch.add)
    mean = site.op == "Mean"

    def run(*x: Tensor) -> Tensor:
        made = functools.reduce(join, x)
        return made / len(x) if mean else made

    return run


@op("Where")
def where(site: Site) -> Run:  # noqa: ARG001
    """The second where the first is true, else the third."""
    return lambda c, a, b: torch.where(c.bool(), a, b)


@op("Gather")
def gather(site: Site) -> Run:
    """Rows by index; negative ones count from the end."""
    axis = site.get("axis", 0)

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
def gather_elements(site: Site) -> Run:
    """One element of an axis for each place of the index."""
    axis = site.get("axis", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        index = torch.where(index < 0, index + x.shape[axis], index).long()
        # ONNX lets the other axes of the index be shorter, and so does torch.
        return torch.gather(x, axis, index)

    return run


@op("GatherND")
def gather_nd(site: Site) -> Run:
    """Slices by tuples of indices, which are the last axis of the index."""
    if site.get("batch_dims", 0):
        raise site.refuse("batch_dims above 0")
    return lambda x, index: x[tuple(index.long().unbind(-1))]


@op("CumSum", host=(1,))
def cumsum(site: Site) -> Run:
    """Running sums along an axis."""
    exclusive, reverse = site.get("exclusive", 0), site.get("reverse", 0)

    def run(x: Tensor, axis: Tensor) -> Tensor:
        dim = int(axis.item())
        x = x.flip(dim) if reverse else x
        sums = x.cumsum(dim).to(x.dtype)
        sums = sums - x if exclusive else sums
        return sums.flip(dim) if reverse else sums

    return run


@op("Trilu", host=(1,))
def trilu(site: Site) -> Run:
    """The upper or the lower triangle of the last two axes."""
    cut = torch.triu if site.get("upper", 1) else torch.tril
    return lambda x, k=None: cut(x, int(k.item()) if k is not None else 0)


@op("ArgMax", "ArgMin")
def arg(site: Site) -> Run:
    """Position of the largest or smallest; no gradient comes back through it."""
    pick = torch.argmax if site.op == "ArgMax" else torch.argmin
    axis, keep = site.get("axis", 0), bool(site.get("keepdims", 1))
    if site.get("select_last_index", 0):
        raise site.refuse("select_last_index")
    return lambda x: pick(x, dim=axis, keepdim=keep)
