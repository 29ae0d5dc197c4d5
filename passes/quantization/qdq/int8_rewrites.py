"""Rewrites of operators to others that have int8 kernels, applied wherever they match.

The parameter-free shortcut of residual networks (He et al. 2015, option A) is Slice with steps and
Pad with zero channels, which onnxruntime runs in float between a DequantizeLinear and a
QuantizeLinear; as a 1x1 convolution it stays in int8. Hard activations open up into operators that
fold into the quantizer after them.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from trimtab.core.model import Model

from ...rewrites import find_rewrite_rule
from ...rewrites.sites import RewriteSite, apply_rule, find_sites

#: The first one leaves a HardSigmoid to the second.
RULES = ("hardswish-open", "hardsigmoid-open", "shortcut-as-conv")
#: Dynamic int8 multiplies tensors of any rank; the Reshapes around a Gemm only cost time there.
DYNAMIC_RULES = ("matmul-from-rows",)
#: Channels beyond which a dense 1x1 convolution costs more than the copy it replaces.
MOST_CHANNELS = 512


def apply_int8_rewrites(model: Model, rules: Sequence[str] = RULES) -> dict[str, int]:
    """Apply the rules in place and return the number of sites of each."""
    found: dict[str, int] = {}
    for name in rules:
        rule = find_rewrite_rule(name)
        sites, _ = find_sites(rule, model.graph)
        values = {v.name: v for node in model.graph for v in node.outputs[:1]}
        where = {site.value for site in sites if _narrow(site, values[site.value])}
        if where:
            found[name] = apply_rule(rule, model.ir, where)
    return found


def _narrow(site: RewriteSite, value: ir.Value) -> bool:
    """Return whether the rule saves time at a site."""
    if site.rule != "shortcut-as-conv":
        return True
    channels = value.shape[1] if value.shape is not None and len(value.shape) == 4 else None
    return isinstance(channels, int) and channels <= MOST_CHANNELS
