"""Reductions over axes, which are an attribute or an input depending on the operator set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .table import NodeSpec, Run, op

Axes = tuple[int, ...]
Reduce = Callable[[Tensor, Axes, bool], Tensor]


def _sum(x: Tensor, axes: Axes, keep: bool) -> Tensor:  # noqa: FBT001 - as torch has it
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _prod(x: Tensor, axes: Axes, keep: bool) -> Tensor:  # noqa: FBT001
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


_REDUCE: dict[str, Reduce] = {
    "ReduceSum": _sum,
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceProd": _prod,
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: _sum(x.square(), axes, keep),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
}


@op(*_REDUCE, host=(1,))
def reduce(spec: NodeSpec) -> Run:
    """Reduce over axes; where none are given over all, or none for `noop_with_empty_axes`."""
    function, keep = _REDUCE[spec.op], bool(spec.get("keepdims", 1))
    nothing = spec.get("noop_with_empty_axes", 0)

    def run(x: Tensor, chosen: Tensor | None = None) -> Tensor:
        axes = spec.sizes("axes", chosen)
        if not axes and nothing:
            return x
        return function(x, tuple(axes or range(x.ndim)), keep)

    return run
