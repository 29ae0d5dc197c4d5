"""Verification for every operator: the masked model computes the same as the cut one."""

from __future__ import annotations

import functools

import channel_cases
import graphs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session
from trimtab.passes import PruneChannels
from trimtab.passes.check import check_model
from trimtab.passes.pruning.dependency.graph import (
    DependencyGraph,
    build_dependency_graph,
    prepare,
)
from trimtab.passes.pruning.structured.cut import cut
from trimtab.passes.pruning.structured.verify import (
    TOLERANCE,
    allowed_error,
    mask,
    verification_error,
)


def some_of_each(graph: DependencyGraph, share: float, seed: int) -> list[int]:
    """A random part of the channels of each group, never all of them."""
    rng = np.random.default_rng(seed)
    return [
        int(c)
        for group in graph.groups
        for c in rng.choice(
            group.units,
            min(round(len(group.units) * share), len(group.units) - 1),
            replace=False,
        )
    ]


def prove(
    model: Model, share: float, *, seed: int = 0, whole: bool = True
) -> tuple[DependencyGraph, int]:
    """Cut a random part of every group and verify; return the graph and the number of units."""
    copy = prepare(model.clone())
    graph = build_dependency_graph(copy, whole=whole)
    removed = some_of_each(graph, share, seed)
    masked = mask(copy, graph, removed)
    cut(graph, removed)
    check_model(copy, "cut")
    assert verification_error(masked, copy, seed=seed) <= TOLERANCE
    return graph, len(removed)


cases = functools.cache(channel_cases.cases)


@pytest.mark.parametrize("name", channel_cases.NAMES)
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    channels=st.sampled_from([8, 16]),
    share=st.sampled_from([0.2, 0.5, 0.8]),
    seed=st.integers(0, 99),
    whole=st.booleans(),
)
def test_cut_graph_computes_what_the_masked_one_does(
    name: str, channels: int, share: float, seed: int, whole: bool
) -> None:
    graph, _ = prove(cases(channels)[name], share, seed=seed, whole=whole)
    assert sum(len(group.units) for group in graph.groups) > 1


@pytest.mark.parametrize("name", channel_cases.NAMES)
def test_what_was_cut_can_be_cut_again(name: str) -> None:
    model = cases(16)[name]
    for seed in range(3):
        graph, _ = prove(model, 0.2, seed=seed)
        model = Model(graph.trace.model, name=name)
    build_session(model)


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_masks_have_the_type_of_what_they_multiply(kind: str) -> None:
    """The types of inner tensors are not in the file."""
    model = graphs.model_of(
        f"""({kind}[N,8] x) => ({kind}[N,4] y) <{kind}[8,16] w, {kind}[16] b, {kind}[16,4] v> {{
            a = Gemm (x, w, b)  r = Relu (a)  y = MatMul (r, v) }}"""
    )
    copy = prepare(model.clone())
    graph = build_dependency_graph(copy, whole=True)
    removed = some_of_each(graph, 0.5, 0)
    masked = mask(copy, graph, removed)
    cut(graph, removed)
    assert verification_error(masked, copy) <= 5e-3


def test_what_rounding_explains_is_allowed() -> None:
    """A sum with a large constant keeps the first digits alone of what convolutions answer."""
    plain = """(float[N,3,8,8] x) => (float[N,4,8,8] y)
    <float[96,3,3,3] v, float[4,96,3,3] w, float[4] large = {900, 900, 900, 900}> {
        c = Conv <pads = [1, 1, 1, 1]> (x, v)
        r = Relu (c)
        d = Conv <pads = [1, 1, 1, 1]> (r, w%s)
        %s
    }"""
    tail = "l = Constant <value_float = 900.0> () s = Sub (d, l) y = Identity (s)"
    noisy = graphs.model_of(plain % (", large", tail))
    calm = graphs.model_of(
        (plain % ("", "y = Identity (d)")).replace(", float[4] large = {900, 900, 900, 900}", "")
    )
    assert allowed_error(calm) == TOLERANCE
    assert TOLERANCE < allowed_error(noisy) <= 1e-3
    PruneChannels(ratio=0.5)(noisy, Context())
