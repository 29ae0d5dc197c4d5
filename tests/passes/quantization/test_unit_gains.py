from __future__ import annotations

import dataclasses

import pytest
from int8_graphs import stubborn

from trimtab.core.context import Context
from trimtab.core.target import Target
from trimtab.passes.graph.shapes import infer_shapes
from trimtab.passes.quantization.file_size import plain_bytes
from trimtab.passes.quantization.layer_costs import LOADED, LOADED_BYTES, saved_alone
from trimtab.passes.quantization.unit_gains import (
    NOISE,
    gains_by_arithmetic,
    gains_by_clock,
    units_of,
)


def chain(layers):
    model, _ = stubborn(layers)
    infer_shapes(model.ir)
    names = [node.name for node in model.graph]
    return model.graph, units_of(model.graph, names), names


def of_each(gains, together=0.0):
    """Time saved by groups, of which each layer saves its own; all together save more."""

    def saved(groups):
        return [
            sum(gains[name] for name in group) + (together if len(group) == len(gains) else 0.0)
            for group in groups
        ]

    return saved


def test_a_unit_is_a_layer_and_all_units_have_some_of_the_arithmetic():
    graph, units, names = chain(5)
    assert units == [[name] for name in names]
    assert gains_by_arithmetic(graph, units) == pytest.approx([0.4] * 5)


@pytest.mark.parametrize("layers", [1, 5, 8])
def test_few_units_are_timed_one_by_one(layers):
    graph, units, names = chain(layers)
    gains = {name: 0.1 - 0.05 * number for number, name in enumerate(names)}
    found = gains_by_clock(graph, units, of_each(gains))
    expected = [gain if abs(gain) > NOISE else 1e-4 for gain in gains.values()]
    assert found == pytest.approx(expected)


def test_the_group_that_is_slowest_is_halved():
    """Of 16 layers in 8 groups one costs much, its neighbour gains."""
    graph, units, names = chain(16)
    gains = dict.fromkeys(names, 0.01) | {names[6]: -0.2}
    found = gains_by_clock(graph, units, of_each(gains))
    assert found == pytest.approx(list(gains.values()))


def test_conversions_that_neighbours_share_count_for_all():
    graph, units, names = chain(4)
    found = gains_by_clock(graph, units, of_each(dict.fromkeys(names, -0.01), together=0.2))
    assert found == pytest.approx([0.03] * 4)


class Counting:
    """A clock that counts how many models it holds at once; the first is the slowest."""

    def __init__(self):
        self.held = []

    def median_ns(self, models, feeds, config, seconds):
        self.held.append(len(models))
        return [2e6, *[1e6] * (len(models) - 1)]


@pytest.mark.parametrize(
    ("weight_bytes", "held"), [(0, [1, LOADED, 3]), (LOADED_BYTES, [1] + [2] * 7)]
)
def test_few_models_are_loaded_at_once_and_of_large_ones_two(monkeypatch, weight_bytes, held):
    model, data = stubborn(7)
    clock = Counting()
    ctx = Context(target=Target.named("x64-avx512-vnni"), clock=clock)
    size = weight_bytes or plain_bytes(model)
    monkeypatch.setattr("trimtab.passes.quantization.layer_costs.plain_bytes", lambda _: size)
    groups = [[node.name] for node in model.graph]
    saved = saved_alone(model, lambda _: dataclasses.replace(model), data, ctx, groups)
    assert saved == [0.5] * 7
    assert clock.held == held
