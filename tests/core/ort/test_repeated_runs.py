"""Repeated runs that write their results into the same memory."""

from __future__ import annotations

import graphs
import numpy as np
import pytest

from trimtab.core.errors import RunError
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.repeated_runs import RepeatedRuns
from trimtab.core.ort.session import build_session, run


def test_results_are_those_of_plain_runs_whatever_the_batch() -> None:
    model = graphs.cnn()
    session, names = build_session(model), [o.name for o in model.outputs]
    again = RepeatedRuns(session, names)
    for seed, batch in enumerate([3, 3, 3, 3, 3, 2, 3, 3, 3]):
        feeds = random_feeds(model, seed=seed, batch=batch)
        for name, array in run(session, feeds, names).items():
            np.testing.assert_array_equal(again.run(feeds)[name], array)


def test_the_previous_result_is_kept_and_the_one_before_is_overwritten() -> None:
    model = graphs.cnn()
    again = RepeatedRuns(build_session(model), [model.outputs[0].name])
    made = []
    kept = []
    for seed in range(5):
        out = next(iter(again.run(random_feeds(model, seed=seed, batch=2)).values()))
        if made:
            np.testing.assert_array_equal(made[-1], kept[-1])
        made.append(out)
        kept.append(out.copy())
    assert made[4] is made[2]
    assert made[4] is not made[3]


def test_results_whose_shape_depends_on_values() -> None:
    model = graphs.model_of("(float[n] x) => (int64[1, k] y) { y = NonZero (x) }")
    again = RepeatedRuns(build_session(model), ["y"])
    for count in (1, 3, 2, 0, 3):
        x = np.array([1.0] * count + [0.0] * (4 - count), np.float32)
        assert again.run({"x": x})["y"].tolist() == [list(range(count))]


def test_feeds_that_the_model_refuses_are_an_error() -> None:
    model = graphs.cnn()
    again = RepeatedRuns(build_session(model), [model.outputs[0].name])
    name = model.inputs[0].name
    with pytest.raises(RunError, match="refuses"):
        again.run({name: np.zeros((1, 99, 2, 2), np.float32)})


def test_without_wanted_outputs_nothing_is_run() -> None:
    assert RepeatedRuns(build_session(graphs.cnn()), []).run({}) == {}
