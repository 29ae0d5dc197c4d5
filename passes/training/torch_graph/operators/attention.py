"""Attention of opset 23."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .table import NodeSpec, Run, op


@op("Attention")
def attention(spec: NodeSpec) -> Run:
    """Compute softmax(q k' scale + mask) v in heads, with keys shared by groups of heads.

    Vaswani et al., 2017. Inputs of three axes have their heads side by side in the last one.
    """
    if spec.uses(3):
        raise spec.refuse("its scores are used")

    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        past_k: Tensor | None = None,
        past_v: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        flat = q.ndim == 3
        if flat:
            q = _heads(q, spec.get("q_num_heads"))
            k, v = (_heads(x, spec.get("kv_num_heads")) for x in (k, v))
        past = 0
        if past_k is not None and past_v is not None:
            past = past_k.shape[2]
            k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        out = _attend(spec, q, k, v, _bias(spec, q, k, mask, past))
        return (out.transpose(1, 2).flatten(2) if flat else out), k, v

    return run


def _heads(x: Tensor, count: int) -> Tensor:
    """Split heads: (N, S, H d) -> (N, H, S, d)."""
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


def _bias(spec: NodeSpec, q: Tensor, k: Tensor, mask: Tensor | None, past: int) -> Tensor | None:
    """Return the bias of the scores, minus infinity where a position is masked."""
    rows, columns = q.shape[2], k.shape[2]
    bias = None
    if mask is not None:
        bias = mask
        if mask.dtype == torch.bool:
            bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
            bias = bias.masked_fill(~mask, -math.inf)
    if spec.get("is_causal", 0):
        seen = torch.ones(rows, columns, dtype=torch.bool, device=q.device).tril(past)
        causal = torch.zeros_like(seen, dtype=q.dtype).masked_fill(~seen, -math.inf)
        bias = causal if bias is None else bias + causal
    return bias


def _attend(spec: NodeSpec, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scale = spec.get("scale") or 1 / math.sqrt(q.shape[-1])
    cap = spec.get("softcap", 0.0)
    if not cap:
        return functional.scaled_dot_product_attention(q, k, v, bias, scale=scale)
    scores = cap * torch.tanh(q @ k.transpose(-1, -2) * scale / cap)
    scores = scores if bias is None else scores + bias
    return torch.softmax(scores, -1) @ v
