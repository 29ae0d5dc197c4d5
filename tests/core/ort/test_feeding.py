"""Feeds of models: sizes and values that they accept, rows of data, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import model_of

from trimtab.core.batches import fixed_rows, items_of
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, ModelError, OptionError
from trimtab.core.memo import Memo
from trimtab.core.model import Model
from trimtab.core.ort.feeding import FeedSource, feeding, feeding_from, random_feeds
from trimtab.core.ort.given_feeds import given_feeds, usual_feeding
from trimtab.core.ort.session import build_session, run

RATE = """(float[N,4] x, int64 sr) => (float[N,4] y) <int64 rate = {16000}>
    { same = Equal (sr, rate)  f = Cast <to=1> (same)  y = Mul (x, f) }"""


def shapes(model: Model, batch: int = 1) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in random_feeds(model, batch=batch).items()}


def neck() -> Model:
    """Return a detector's neck, which takes sides of 24 but not of 16."""
    return model_of(
        """(float[batch,3,height,width] x) => (float[batch,3,h,w] y)
        <float[4] twice = {1, 1, 2, 2}>
        { p = MaxPool <kernel_shape=[3,3], strides=[6,6], pads=[1,1,1,1]> (x)
          q = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (p)
          u = Resize <mode="nearest"> (q, , twice)  y = Add (u, p) }"""
    )


def one_row() -> Model:
    """Return a model whose batch is free in the interface, but that takes one row alone."""
    return model_of(
        """(float[n,3,8] x, float[m,8] h) => (float[k,8] y)
        <int64[3] one = {1, 3, 8}, int64[1] middle = {1}>
        { a = Reshape (x, one)  b = ReduceMean <keepdims=0> (a, middle)  y = Add (b, h) }"""
    )


def test_default_sizes_stay_where_the_model_takes_them() -> None:
    model = model_of("(float[N,L] x) => (float[N,L] y) { y = Relu (x) }")
    assert shapes(model) == {"x": (1, 16)}
    assert feeding(model, batch=2).why == "default sizes"


def test_sides_that_the_graph_accepts_are_found() -> None:
    fed = feeding(neck(), batch=2)
    assert len(fed.feeds["x"]) == 2
    assert run(build_session(neck()), fed.feeds)["y"].size
    assert "found by trying" in fed.why


def test_categories_are_those_that_an_encoder_knows() -> None:
    model = model_of(
        """(string[N,1] sex, string[N,1] port, int64[N,1] rooms, string[N] free)
        => (float[N,9] y, string[N] z) {
            both = Concat <axis=1> (sex, port)
            e = ai.onnx.ml.OneHotEncoder <cats_strings=["f", "m", "C"]> (both)
            k = ai.onnx.ml.OneHotEncoder <cats_int64s=[7, 9, 11]> (rooms)
            f = Flatten (e)  g = Flatten (k)  y = Concat <axis=1> (f, g)  z = Identity (free) }""",
        imports=', "ai.onnx.ml": 1',
    )
    fed = feeding(model, seed=3, batch=4)
    assert set(fed.feeds["sex"].ravel()) <= {"f", "m", "C"}
    assert set(fed.feeds["rooms"].ravel()) <= {7, 9, 11}
    assert "sex [4, 1] texts of f, m, C" in str(fed)
    assert "rooms [4, 1] int64 of 7, 9, 11" in str(fed)
    assert "free [4] texts text" in str(fed)
    assert run(build_session(model), fed.feeds)["y"].shape == (4, 9)


def test_of_many_inputs_the_first_are_told() -> None:
    names = [f"x{number}" for number in range(20)]
    declared = ", ".join(f"float[N] {name}" for name in names)
    model = model_of(f"({declared}) => (float[N] y) {{ y = Sum ({', '.join(names)}) }}")
    assert str(feeding(model)).count("float32") == 6
    assert "x5 [1] float32 from N(0, 1) and 14 more (" in str(feeding(model))


def test_an_axis_with_a_least_size_gets_it() -> None:
    model = model_of(
        """(float[batch,samples] x) => (float[batch,frames] y) <int64[1] one = {1}>
        { u = Unsqueeze (x, one)  p = MaxPool <kernel_shape=[64], strides=[32]> (u)
          y = Squeeze (p, one) }"""
    )
    assert shapes(model)["x"][1] >= 64


def test_a_name_has_one_size_on_every_axis() -> None:
    model = model_of(
        """(float[batch,8] x, float[2,batch,8] state) => (float[batch,8] y)
        <int64[1] zero = {0}> { s = ReduceSum <keepdims=0> (state, zero)  y = Add (x, s) }"""
    )
    assert shapes(model, 3) == {"x": (3, 8), "state": (2, 3, 8)}
    assert fixed_rows(model) is None


def test_a_second_axis_without_a_name_follows_the_batch() -> None:
    model = model_of(
        """(float[?,8] x, float[2,?,8] state) => (float[?,8] y)
        <int64[1] zero = {0}> { s = ReduceSum <keepdims=0> (state, zero)  y = Mul (x, s)
          c = Concat <axis=1> (x, s) }"""
    )
    found = shapes(model, 2)
    assert found["x"][0] == found["state"][1] == 2


def test_one_row_is_fed_where_the_model_takes_no_more() -> None:
    model = one_row()
    assert shapes(model, 2) == {"x": (1, 3, 8), "h": (1, 8)}
    assert fixed_rows(model) == 1


def test_indices_stay_below_the_rows_of_their_table() -> None:
    model = model_of(
        """(int64[N,S] kinds, int64[N,S] shifted) => (float[N,S,2] y)
        <float[1,2] one = {1, 2}, float[3,2] three = {1, 2, 3, 4, 5, 6}, int64 base = {3}>
        { a = Gather (one, kinds)  i = Sub (shifted, base)  b = Gather (three, i)
          y = Add (a, b) }"""
    )
    feeds = random_feeds(model)
    assert (feeds["kinds"] == 0).all()
    assert feeds["shifted"].min() >= 3
    assert feeds["shifted"].max() <= 5


def test_indices_into_another_input_stay_below_its_rows() -> None:
    model = model_of("(float[B,2] x, int64[B] i) => (float[B,2] y) { y = Gather (x, i) }")
    feeds = given_feeds(model, {"x": (1, 2), "i": (1,)})
    assert (feeds["i"] == 0).all()


def test_a_scalar_is_what_the_graph_compares_it_with() -> None:
    feeds = random_feeds(model_of(RATE))
    assert feeds["sr"].shape == ()
    assert feeds["sr"] == 16000


def test_codes_are_within_the_positions_that_they_are_compared_with() -> None:
    model = model_of(
        """(int32[N,1] x) => (float[N,9] y) <int32[9] codes = {0, 1, 2, 3, 4, 5, 6, 7, 8}>
        { e = Equal (x, codes)  y = Cast <to=1> (e) }"""
    )
    drawn = random_feeds(model, batch=64)["x"]
    assert set(drawn.ravel()) == set(range(9))


def test_lengths_are_above_zero_and_within_the_positions() -> None:
    model = model_of(
        """(float[N,3] x, int64[N] lengths) => (float[N,3] y)
        <int64[3] positions = {1, 2, 3}, int64[1] one = {1}>
        { l = Unsqueeze (lengths, one)  m = LessOrEqual (positions, l)  f = Cast <to=1> (m)
          d = Cast <to=1> (l)  e = Mul (x, f)  y = Div (e, d) }"""
    )
    feeds = random_feeds(model, batch=2)
    assert feeds["lengths"].min() >= 1
    assert feeds["lengths"].max() <= 3


def test_masks_are_of_ones_and_states_of_zeros() -> None:
    model = model_of(
        """(float[1,2] attention_mask, float[1,2] h) => (float[1,2] hn)
        { hn = Add (attention_mask, h) }"""
    )
    feeds = random_feeds(model)
    assert (feeds["attention_mask"] == 1).all()
    assert (feeds["h"] == 0).all()


@pytest.mark.parametrize(
    ("first", "pixels"),
    [("Sub (x, mean)", True), ("Div (x, full)", True), ("Div (x, two)", False)],
)
def test_pixels_are_fed_where_the_first_layer_expects_them(first: str, *, pixels: bool) -> None:
    model = model_of(
        "(float[1,3,4,4] x) => (float[1,3,4,4] y)"
        f"<float mean = {{127.5}}, float full = {{255}}, float two = {{2}}> {{ y = {first} }}"
    )
    assert bool(random_feeds(model)["x"].max() > 100) is pixels


def test_sizes_of_minus_one_and_zero_are_free() -> None:
    model = model_of("(float[N,3] x) => (float[N,3] y) { y = Relu (x) }")
    for size in (-1, 0):
        proto = model.to_proto()
        for value in (proto.graph.input[0], proto.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = size
        read = Model.from_proto(proto)
        assert [spec.shape for spec in (*read.inputs, *read.outputs)] == [(None, 3)] * 2
        assert shapes(read, 2) == {"x": (2, 3)}


def test_a_sequence_among_the_inputs_is_refused() -> None:
    with pytest.raises(ModelError, match="'s' is of the type sequence"):
        model_of("(seq(float[N]) s) => (float[M] y) { y = ConcatFromSequence <axis=0> (s) }")


def test_a_model_that_runs_at_no_size_names_the_option() -> None:
    model = model_of(
        """(float[N,M] x) => (float[N,K] y) <int64[2] s = {-1, 99991}>
        { y = Reshape (x, s) }"""
    )
    with pytest.raises(InputError, match=r"none of \d+ sizes.*--shape x="):
        random_feeds(model)


def test_given_shapes_are_fed_and_refused_where_they_do_not_fit() -> None:
    assert feeding(neck(), FeedSource({"x": (1, 3, 24, 36)})).feeds["x"].shape == (1, 3, 24, 36)
    with pytest.raises(OptionError, match="does not run at x=1x3x16x16"):
        feeding(neck(), FeedSource({"x": (1, 3, 16, 16)}))
    with pytest.raises(OptionError, match="does not fit"):
        feeding(neck(), FeedSource({"x": (1, 4, 24, 24)}))


def test_a_measurement_suggests_sizes_that_the_model_takes() -> None:
    with pytest.raises(OptionError, match=r"--shape x=1x3x(\d+)x\1") as refusal:
        given_feeds(neck())
    size = int(str(refusal.value).rsplit("x", 1)[1])
    given_feeds(neck(), {"x": (1, 3, size, size)})


def test_rows_of_the_data_are_fed_inside_of_a_source() -> None:
    rows = np.arange(24, dtype=np.float32).reshape(4, 6)
    model = model_of("(float[N,L] x) => (float[N,L] y) { y = Relu (x) }")
    data = Dataset.of_arrays({"x": rows})
    with feeding_from(model, FeedSource(items=items_of(model, data), name="rows", memo=Memo())):
        assert np.array_equal(random_feeds(model)["x"], rows[:1])
        assert np.array_equal(random_feeds(model, batch=2)["x"], rows[:2])
        assert np.array_equal(random_feeds(model, seed=1, batch=2)["x"], rows[2:])
    assert random_feeds(model)["x"].shape == (1, 16)


def test_batches_of_the_user_gain_rows_along_the_batch_alone() -> None:
    model = model_of(
        """(float[?,8] x, float[2,?,8] state, int64 sr) => (float[?,8] y)
        <int64[1] zero = {0}, int64 rate = {16000}>
        { s = ReduceSum <keepdims=0> (state, zero)  a = Add (x, s)  e = Equal (sr, rate)
          f = Cast <to=1> (e)  y = Mul (a, f)  z = Concat <axis=1> (a, s) }"""
    )
    batch = {
        "x": np.ones((1, 8), np.float32),
        "state": np.ones((2, 1, 8), np.float32),
        "sr": np.array(16000),
    }
    data = Dataset.of_batches(lambda: [batch] * 3)
    with feeding_from(model, FeedSource(items=items_of(model, data), name="rows", memo=Memo())):
        feeds = random_feeds(model, batch=2)
    assert {n: a.shape for n, a in feeds.items()} == {"x": (2, 8), "state": (2, 2, 8), "sr": ()}
    assert run(build_session(model), feeds)["y"].shape == (2, 8)


def test_usual_sizes_are_fed_where_the_model_takes_them_and_else_ones_that_are_found() -> None:
    picture = model_of("(float[N,3,height,width] x) => (float[N,3,h,w] y) { y = Relu (x) }")
    fed = usual_feeding(picture)
    assert fed.feeds["x"].shape == (1, 3, 224, 224)
    assert "usual sizes; --shape" in fed.why
    fed = usual_feeding(picture, {"x": (1, 3, 8, 8)})
    assert (fed.feeds["x"].shape, fed.why) == ((1, 3, 8, 8), "sizes given")
    divided = model_of(
        """(float[N,3,height,width] x) => (float[N,3,h,w] y)
        <int64[5] fifths = {0, 3, 5, 5, -1}>
        { y = Reshape (x, fifths) }"""
    )
    fed = usual_feeding(divided)  # 224 is no multiple of 25
    assert fed.feeds["x"].size % 25 == 0
    assert "--shape" in fed.why


def test_an_input_of_an_impossible_size_is_refused_by_name() -> None:
    model = model_of("(float[4611686018427387904,16] x) => (float[n,16] y) { y = Relu (x) }")
    with pytest.raises(InputError, match="'x' of shape"):
        random_feeds(model)
