"""Refinements of static int8, each kept only where held-out samples confirm it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from trimtab.core.batches import fitting
from trimtab.core.errors import TrimtabError
from trimtab.core.model import Model

from ..base import Pass, Rewrite
from ..calibration.range_estimator import Method
from .algorithms.bias_correction import correct_by_layer
from .algorithms.cross_layer_equalization import Equalize
from .greedy_search import GreedySearch
from .qdq.float_reference import prepare_reference
from .static import QuantizeStatic

#: Samples for bias correction.
CORRECTING = 128
#: Range methods that are tried after the default one.
RANGES: tuple[Method, ...] = ("minmax", "percentile", "entropy")


def refine(search: GreedySearch, static: QuantizeStatic) -> tuple[QuantizeStatic, tuple[Pass, ...]]:
    """Try other ranges, scales of least error, and equalisation where a channel has few weights.

    Returns:
        The settings of the best, and the passes that come before them.
    """
    before: tuple[Pass, ...] = ()
    for method in RANGES:
        other = static.with_fields(ranges=method)
        static = other if search.offer(f"ranges {method}", other) else static
    other = static.with_fields(scales="mse")
    static = other if search.offer("scales mse", other) else static
    if _has_grouped_conv(search.original.graph):
        own = static.with_fields(statistics="")  # other weights have other statistics
        if why := _why_not_equalized(search):
            search.steps.append({"step": "equalize", "kept": False, "why": why})
        elif search.offer("equalize", Equalize(), own):
            static, before = own, (Equalize(),)
    return static, before


def corrected(
    best: Model, search: GreedySearch, static: QuantizeStatic, before: Sequence[Pass]
) -> Rewrite:
    """Correct the biases of a Q/DQ model towards the float model, on its calibration data.

    Args:
        best: model to correct, whose graph may be changed.
        search: the search.
        static: settings that made the model.
        before: passes that came before them.
    """
    assert static.data is not None
    source = search.apply(before)
    data = fitting(source, static.data.take(CORRECTING), rows=32)
    return correct_by_layer(best, prepare_reference(source), list(data), search.ctx)


def _why_not_equalized(search: GreedySearch) -> str:
    """Return why the layers of a model are not scaled against each other; "" where some are."""
    try:
        changed = Equalize()(search.original, search.ctx).lineage[-1].notes["changed"]
    except TrimtabError as failure:  # as of every refinement: the search goes on without it
        return str(failure)
    return (
        "" if changed else "no layers can be scaled through what is between them, as through Relu"
    )


def _has_grouped_conv(graph: ir.Graph) -> bool:
    """Return whether a convolution has groups: channels of few weights tend to differ in range."""
    return any(n.op_type == "Conv" and n.attributes.get_int("group", 1) > 1 for n in graph)
