"""Checks of a pass's result on inputs that the model takes, and blame where it belongs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from graphs import model_of
from heard import Heard

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import ModelError, OptionError, PassError
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.passes import Equalize, Simplify
from trimtab.passes.base import Pass, Rewrite


@dataclass(frozen=True)
class Nothing(Pass):
    """Leave the model as it is."""

    tolerance: ClassVar[float | None] = 1e-6

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        return Rewrite(model.ir)


@dataclass(frozen=True)
class Negated(Pass):
    """Negate the first output, which the check has to find."""

    tolerance: ClassVar[float | None] = 1e-6

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        last = next(node for node in model.graph if node.outputs[0].is_graph_output())
        before = last.inputs[0]
        assert before is not None
        node = ir.node("Neg", [before])
        node.outputs[0].name = "negated"
        model.graph.insert_before(last, node)
        last.replace_input_with(0, node.outputs[0])
        return Rewrite(model.ir)


def window() -> Model:
    """Return a model that takes 64 samples and more."""
    return model_of(
        """(float[batch,1,samples] x) => (float[batch,1,frames] y)
        { p = MaxPool <kernel_shape=[64], strides=[32]> (x)  y = Tanh (p) }"""
    )


def told(model: Model, **fields: object) -> list[str]:
    ctx = replace(Context(progress=Heard()), **fields)
    Nothing()(model, ctx)
    assert isinstance(ctx.progress, Heard)
    return ctx.progress.said


def test_the_sizes_that_were_compared_on_are_told() -> None:
    [line] = told(window())
    assert "found by trying" in line


def test_a_changed_number_is_found_at_sizes_that_the_model_takes() -> None:
    with pytest.raises(PassError, match="changed output 'y'"):
        Negated()(window(), Context())


def test_rows_of_the_data_are_compared_on() -> None:
    data = Dataset.of_arrays({"x": np.ones((4, 1, 100), np.float32)})
    [line] = told(window(), data=data)
    assert "x [2, 1, 100]" in line


def test_given_shapes_are_compared_on_and_refused_as_an_option() -> None:
    [line] = told(window(), shapes={"x": (1, 1, 96)})
    assert "x [1, 1, 96]" in line
    with pytest.raises(OptionError, match="does not fit the model's input x"):
        Nothing()(window(), Context(shapes={"x": (1, 2, 96)}))


def test_a_model_that_runs_at_no_size_is_passed_on_and_told() -> None:
    model = model_of(
        """(float[N,M] x) => (float[N,K] y) <int64[2] s = {-1, 99991}>
        { y = Reshape (x, s) }"""
    )
    [line] = told(model)
    assert "the numbers were not compared" in line
    assert "--shape x=" in line


def test_a_broken_original_is_not_blamed_on_the_pass() -> None:
    model = model_of("(float[1,2] x) => (float[1,2] y) { y = NonsenseOp (x) }")
    with pytest.raises(ModelError, match="onnxruntime refuses it"):
        Nothing()(model, Context())


@dataclass(frozen=True)
class Nudged(Pass):
    """Multiply a weight by nearly one, as rounding does that adds in another order."""

    tolerance: ClassVar[float | None] = 1e-6

    by: float = 0.0

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        weight = model.graph.initializers["w"]
        assert weight.const_value is not None
        array = weight.const_value.numpy() * np.float32(1 + self.by)
        weight.const_value = ir.tensor(array, name="w")
        return Rewrite(model.ir)


def test_what_rounding_alone_changes_is_not_blamed_on_the_pass() -> None:
    """A sum with a large number and the difference after it amplify the last bit."""
    w = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32) / 12
    model = model_of(
        """(float[N, 16, 12, 12] x) => (float[N, 16, 10, 10] y)
        <float[16, 16, 3, 3] w, float big = {3000}> {
            c = Conv (x, w) s = Add (c, big) y = Sub (s, big)
        }""",
        w=w,
    )
    plain = model_of(
        """(float[N, 16, 12, 12] x) => (float[N, 16, 10, 10] y) <float[16, 16, 3, 3] w>
        { y = Conv (x, w) }""",
        w=w,
    )
    Nudged(by=3e-7)(model)
    for steady in (model, plain):
        with pytest.raises(PassError, match="changed output 'y'"):
            Nudged(by=0.02)(steady)
    with pytest.raises(PassError, match="changed output 'y'"):
        Nudged(by=1e-5)(plain)


DRAWING = {
    "beside the rows": """(float[N,8] x) => (float[N,8] y) <float[8,8] w> {
        r = RandomNormalLike (x)  a = Add (x, r)  y = MatMul (a, w) }""",
    "two alike": """(float[N,8] x) => (float[N,8] y) <float[8,8] w> {
        r = RandomUniform <shape=[8]> ()  s = RandomUniform <shape=[8]> ()
        d = Sub (r, s)  i = Identity (x)  a = Add (i, d)  y = MatMul (a, w) }""",
    "a Dropout that trains": """(float[N,8] x) => (float[N,8] y)
        <float[8,8] w, float part = {0.5}, bool train = {1}> {
        d = Dropout (x, part, train)  y = MatMul (d, w) }""",
}


@pytest.mark.parametrize("name", DRAWING)
def test_models_that_draw_numbers_are_compared_on_the_same_draws(name: str) -> None:
    model = model_of(DRAWING[name])
    feeds = {"x": np.ones((4, 8), np.float32)}
    draws = [run(build_session(model), feeds)["y"] for _ in range(2)]
    np.testing.assert_array_equal(*draws)
    for step in (Simplify(), Equalize(), Nothing()):
        after = step(model)
        assert not any("seed" in node.attributes for node in after.nodes())
        np.testing.assert_allclose(run(build_session(after), feeds)["y"], draws[0], rtol=1e-4)
    with pytest.raises(PassError, match="changed output"):
        Negated()(model)


@dataclass(frozen=True)
class Shifted(Pass):
    """Shift the input of the last node."""

    tolerance: ClassVar[float | None] = 1e-3
    by: float = 0.2

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        last = next(node for node in model.graph if node.outputs[0].is_graph_output())
        before = last.inputs[0]
        assert before is not None
        shift = ir.val("shift", const_value=ir.tensor(np.float32(self.by), name="shift"))
        model.graph.initializers["shift"] = shift
        node = ir.node("Add", [before, shift])
        model.graph.insert_before(last, node)
        last.replace_input_with(0, node.outputs[0])
        return Rewrite(model.ir)


@pytest.mark.parametrize(("least", "passes"), [(-16.0, True), (-3.0, False)])
def test_probabilities_of_nothing_are_compared_with_a_thousandth(
    least: float, passes: bool
) -> None:
    """A fifth of 1e-7 is rounding of a sigmoid, a fifth of 0.05 is not."""
    model = model_of(
        f"""(float[batch,8] x) => (float[batch,8] y)
        <float offset = {{{least}}}>
        {{ s = Tanh (x)  a = Add (s, offset)  y = Sigmoid (a) }}"""
    )
    if passes:
        Shifted()(model, Context())
    else:
        with pytest.raises(PassError, match="changed output 'y'"):
            Shifted()(model, Context())
