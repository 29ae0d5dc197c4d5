"""Feeds of models, and the messages where their shapes are not known."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import model_of

from trimtab.core.errors import InputError, OptionError
from trimtab.core.model import Model
from trimtab.core.ort.given_feeds import given_feeds
from trimtab.runtime_bench.measure.feeds import check_same_inputs, describe


def relu(signature: str) -> Model:
    return model_of(f"({signature} x) => ({signature} y) {{ y = Relu(x) }}")


def test_fixed_shapes_need_no_question() -> None:
    feeds = given_feeds(relu("float[2,3]"))
    assert describe(feeds) == {"x": "2x3 float32"}


def test_a_dynamic_axis_asks_and_suggests_a_size() -> None:
    with pytest.raises(OptionError, match=r"dynamic axis.*--shape x=1x3x224x224"):
        given_feeds(relu("float[N,3,height,width]"))
    with pytest.raises(OptionError, match="--shape x=1x128"):
        given_feeds(relu("float[batch,sequence]"))


def test_a_given_shape_answers() -> None:
    feeds = given_feeds(relu("float[N,3,height,width]"), {"x": (2, 3, 8, 8)})
    assert feeds["x"].shape == (2, 3, 8, 8)


def test_a_batch_answers_for_a_leading_axis_only() -> None:
    assert given_feeds(relu("float[N,3]"), batch=8)["x"].shape == (8, 3)
    with pytest.raises(OptionError, match="dynamic axis"):
        given_feeds(relu("float[N,L]"), batch=8)


@pytest.mark.parametrize("shape", [(1, 4), (1, 3, 1), (3,)])
def test_a_shape_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="does not fit"):
        given_feeds(relu("float[N,3]"), {"x": shape})


def test_a_misspelt_input_gets_a_suggestion() -> None:
    model = model_of("(float[N,3] pixels) => (float[N,3] y) { y = Relu(pixels) }")
    with pytest.raises(OptionError, match="Did you mean 'pixels'"):
        given_feeds(model, {"pixel": (1, 3)})


def test_the_same_seed_feeds_the_same() -> None:
    model = relu("float[2,3]")
    assert np.array_equal(given_feeds(model, seed=3)["x"], given_feeds(model, seed=3)["x"])


def test_models_with_other_names_are_refused() -> None:
    a, b = relu("float[2,3]"), model_of("(float[2,3] z) => (float[2,3] y) { y = Relu(z) }")
    with pytest.raises(InputError, match="takes the inputs z; graph in a test takes x"):
        check_same_inputs([a, b], given_feeds(a))


@pytest.mark.parametrize("other", ["float[2,4]", "float[2]", "double[2,3]"])
def test_models_with_other_shapes_or_types_are_refused(other: str) -> None:
    a = relu("float[2,3]")
    with pytest.raises(InputError, match=r"is fed \[2, 3\] float32"):
        check_same_inputs([a, relu(other)], given_feeds(a))


def test_a_dynamic_model_takes_the_feeds_of_a_fixed_one() -> None:
    a = relu("float[2,3]")
    check_same_inputs([a, relu("float[N,3]")], given_feeds(a))
