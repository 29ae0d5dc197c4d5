"""Normalisations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .table import NodeSpec, Run, op


@op("BatchNormalization")
def batch_normalization(spec: NodeSpec) -> Run:
    """Normalise by stored statistics, or in training by those of the batch, which update them.

    Ioffe and Szegedy, "Batch Normalization", 2015.
    """
    epsilon, mode = spec.get("epsilon", 1e-5), spec.mode
    if spec.get("training_mode", 0) or any(spec.used[1:]) or not spec.get("spatial", 1):
        raise spec.refuse("the graph computes its statistics itself")

    def run(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        if mode.observe is not None:
            mode.observe(shift, x)
        learn = mode.training and mode.batch_norm == "trained"
        return functional.batch_norm(x, mean, var, scale, shift, learn, mode.momentum, epsilon)

    return run


@op("InstanceNormalization")
def instance_normalization(spec: NodeSpec) -> Run:
    """Normalise each channel of each item."""
    epsilon = spec.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        # torch's own refuses one element a channel.
        axes = tuple(range(2, x.ndim))
        var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        shape = (1, -1, *(1,) * len(axes))
        return (x - mean) * torch.rsqrt(var + epsilon) * scale.view(shape) + shift.view(shape)

    return run


@op("LayerNormalization")
def layer_normalization(spec: NodeSpec) -> Run:
    """Normalise over the axes from `axis` on (Ba et al., "Layer Normalization", 2016)."""
    axis, epsilon = spec.get("axis", -1), spec.get("epsilon", 1e-5)
    if any(spec.used[1:]):
        raise spec.refuse("its mean or deviation is used")

    def run(x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
        shape = x.shape[axis:]
        if scale.shape == shape and (shift is None or shift.shape == shape):
            return functional.layer_norm(x, shape, scale, shift, epsilon)
        out = functional.layer_norm(x, shape, None, None, epsilon) * scale
        return out if shift is None else out + shift

    return run


@op("RMSNormalization")
def rms_normalization(spec: NodeSpec) -> Run:
    """Divide by the root mean square (Zhang and Sennrich, 2019)."""
    axis, epsilon = spec.get("axis", -1), spec.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = tuple(range(axis % x.ndim, x.ndim))
        wide = x.float()  # stash_type: half precision would overflow in the squares
        out = wide * torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)
        return out.to(x.dtype) * scale

    return run


@op("GroupNormalization")
def group_normalization(spec: NodeSpec) -> Run:
    """Normalise groups of channels (Wu and He, "Group Normalization", 2018).

    Opset 18 has a scale for each group, opset 21 for each channel.
    """
    groups, epsilon = spec.get("num_groups"), spec.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if spec.version < 21:
            each = x.shape[1] // groups
            scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
        return functional.group_norm(x, groups, scale, shift, epsilon)

    return run


@op("LRN")
def lrn(spec: NodeSpec) -> Run:
    """Normalise across channels (Krizhevsky et al., 2012).

    An even size reaches one channel further up, unlike torch's own.
    """
    size, alpha = spec.get("size"), spec.get("alpha", 1e-4)
    beta, bias = spec.get("beta", 0.75), spec.get("bias", 1.0)
    before = (size - 1) // 2

    def run(x: Tensor) -> Tensor:
        around = [0, 0] * (x.ndim - 2) + [before, size - 1 - before]
        sums = functional.pad(x.square(), around).unfold(1, size, 1).sum(-1)
        return x / torch.pow(bias + alpha / size * sums, beta)

    return run


@op("LpNormalization")
def lp_normalization(spec: NodeSpec) -> Run:
    """Divide by the p-norm along an axis; zeros stay zeros."""
    axis, p = spec.get("axis", -1), spec.get("p", 2)

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return torch.where(norm > 0, x / norm.clamp_min(torch.finfo(x.dtype).tiny), 0.0 * x)

    return run
