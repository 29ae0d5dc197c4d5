"""Promises of every pass, checked for all of them; a new pass is covered automatically."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from typing import Any, Union, get_args, get_origin

import graphs
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from contract_graphs import ODD_GRAPHS
from validity import LEVELS, assert_valid, assert_within, run_rows

from trimtab.core.context import Context, Ratio
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, MissingExtraError, OptionError
from trimtab.core.fields import Field
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import build_session, run
from trimtab.core.target import Target
from trimtab.passes import registry
from trimtab.passes.base import Pass, relative_error

#: Largest difference of one element between levels of optimization, relative to the largest.
#: Fused int8 kernels round otherwise than the operators in Q/DQ that they stand for.
LEVELS_DIFFER = 0.08
GRAPHS = {"cnn": graphs.cnn, "mlp": graphs.mlp, "transformer": graphs.transformer}
PASSES = list(registry().values())

each_pass = pytest.mark.parametrize("kind", PASSES, ids=lambda kind: kind.name())
each_graph = pytest.mark.parametrize("graph", GRAPHS)


class EvenClock:
    """Clock that finds all models equally fast."""

    def compare(self, *args: Any) -> Ratio:
        return Ratio(1.0, 0.99, 1.01)

    def median_ns(self, models: Any, *args: Any) -> list[float]:
        return [1000.0] * len(models)


#: Data of each model that was fed, by its digest: all passes get the same.
DATA: dict[str, Dataset] = {}


def context(model: Model) -> Context:
    if model.digest not in DATA:
        runs = [random_feeds(model, seed=s, sizes={"batch": 4, "length": 6}) for s in range(8)]
        feeds = {name: np.concatenate([r[name] for r in runs]) for name in runs[0]}
        batch = model.inputs[0].shape[0]
        size = batch if isinstance(batch, int) else 4
        DATA[model.digest] = Dataset.of_arrays(feeds, batch=size)
    target, data = Target.named("x64-avx512-vnni"), DATA[model.digest]
    return Context(target=target, data=data, seed=7, clock=EvenClock())


def applied(kind: type[Pass], model: Model) -> Model:
    """Apply a pass with all fields at their defaults; skip one that refuses with a hint."""
    ctx = context(model)
    try:
        return kind()(model, ctx)
    except (InputError, MissingExtraError) as error:
        refusal = error
    assert refusal.hint, "a refusal says what to do next"
    pytest.skip(f"refuses: {refusal}")


@functools.cache
def result(kind: type[Pass], graph: str) -> tuple[Model, Model, bytes, dict[str, np.ndarray]]:
    """Return input, output, and the input's bytes and weights before the pass."""
    model = GRAPHS[graph]()
    data, weights = model.to_bytes(), graphs.weights_of(model)
    return model, applied(kind, model), data, dict(weights)


def other_values(known: Field) -> list[Any]:
    """Return values of a field that are not its default, by its type."""
    union = get_origin(known.type) in {Union, types.UnionType}
    found: list[Any] = list(known.choices)
    for kind in get_args(known.type) if union else (known.type,):
        element, *_ = get_args(kind) or (None,)
        if kind in {int, float}:
            found += [kind(1), kind(2), kind(16), 0.25 if kind is float else 0]
        elif kind in {str, bool}:
            found += ["x"] if kind is str else [True, False]
        elif get_origin(kind) is tuple and element in {int, float, str}:
            found += [(element(1), element(2)), (element(3),)]
    return [value for value in found if value != known.default]


@each_pass
def test_is_a_frozen_dataclass_whose_fields_all_have_defaults_and_help(kind: type[Pass]) -> None:
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    kind()
    assert [name for name, known in kind.fields().items() if not known.help] == []
    assert kind.summary()


@each_pass
def test_defaults_round_trip_through_json(kind: type[Pass]) -> None:
    assert kind().to_json() == {}
    assert kind.from_json({}) == kind()


@each_pass
def test_other_values_round_trip_through_json(kind: type[Pass]) -> None:
    for name, known in kind.fields().items():
        for value in other_values(known):
            try:
                made = kind(**{name: value})
            except OptionError:
                continue  # a value that this field, alone, may not have
            text = json.dumps(made.to_json())
            assert kind.from_json(json.loads(text)) == made, name


@each_pass
def test_refuses_a_field_that_it_does_not_have(kind: type[Pass]) -> None:
    with pytest.raises(OptionError, match="no_such_field"):
        kind.from_json({"no_such_field": 1})


@each_pass
@each_graph
def test_leaves_its_input_as_it_was(kind: type[Pass], graph: str) -> None:
    model, _, data, weights = result(kind, graph)
    assert model.to_bytes() == data
    for name, array in graphs.weights_of(model).items():
        np.testing.assert_array_equal(array, weights[name])


@each_pass
@each_graph
def test_output_passes_the_full_checker_and_runs(kind: type[Pass], graph: str) -> None:
    model, after, _, _ = result(kind, graph)
    full = set(after.ir.opset_imports) <= {"", "ai.onnx"}
    onnx.checker.check_model(after.to_proto(), full_check=full)
    outputs = run(build_session(after), random_feeds(model, batch=2))
    assert all(np.isfinite(array).all() for array in outputs.values())


@each_pass
@each_graph
def test_inputs_and_outputs_keep_names_types_and_shapes(kind: type[Pass], graph: str) -> None:
    model, after, _, _ = result(kind, graph)
    assert after.inputs == model.inputs
    assert after.outputs == model.outputs


@each_pass
def test_sizes_that_outputs_are_declared_with_by_name_stay_so(kind: type[Pass]) -> None:
    model = graphs.cnn().clone()
    for value in model.graph.outputs:  # inference would find numbers for these
        value.shape = ir.Shape([f"size{i}" for i in range(len(value.shape))])
    assert applied(kind, model).outputs == model.outputs


@each_pass
@each_graph
def test_lineage_records_pass_parameters_and_input(kind: type[Pass], graph: str) -> None:
    model, after, _, _ = result(kind, graph)
    step = Model.from_proto(after.to_proto()).lineage[-1]
    assert (step.pass_name, step.params) == (kind.name(), kind().to_json())
    assert step.input_digest == model.digest


@each_pass
@each_graph
def test_same_seed_gives_same_bytes(kind: type[Pass], graph: str) -> None:
    _, after, _, _ = result(kind, graph)
    assert applied(kind, GRAPHS[graph]()).to_bytes() == after.to_bytes()


@each_pass
@each_graph
def test_numbers_stay_within_the_declared_tolerance(kind: type[Pass], graph: str) -> None:
    model, after, _, _ = result(kind, graph)
    if kind.tolerance is None:
        pytest.skip("changes numbers by design")
    feeds = random_feeds(model, seed=99, batch=3)
    expected, got = run(build_session(model), feeds), run(build_session(after), feeds)
    # Both with all of onnxruntime's fusions, which round differently by themselves.
    for name, array in expected.items():
        assert relative_error(array, got[name]) <= max(kind.tolerance, 1e-5)


@each_pass
@pytest.mark.parametrize("graph", [*GRAPHS, *ODD_GRAPHS])
def test_what_is_written_is_valid_and_runs_alike_at_each_level(
    kind: type[Pass], graph: str
) -> None:
    model = (GRAPHS | ODD_GRAPHS)[graph]()
    before, after = model.to_proto(), applied(kind, model).to_proto()
    assert_valid(before, after)
    fixed = [d for spec in model.inputs for d in spec.shape or () if isinstance(d, int)]
    feeds = random_feeds(model, sizes={"N": 4, "batch": 4, "length": 6}, seed=len(fixed))
    expected = run_rows(after, feeds, "off")
    bounds = dict.fromkeys(expected, (LEVELS_DIFFER, LEVELS_DIFFER))
    for level in LEVELS:
        for threads in (1, 2):
            got = run_rows(after, feeds, level, threads)
            assert_within(expected, got, bounds, f"{level}, {threads} threads")


@each_pass
def test_leaves_a_graph_without_weights_alone(kind: type[Pass]) -> None:
    after = applied(kind, graphs.relu_only())
    assert graphs.ops(after) == ["Relu"]
