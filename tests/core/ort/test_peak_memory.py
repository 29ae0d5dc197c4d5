"""Peak memory of a run, counted on graphs whose values can be added up by hand."""

from __future__ import annotations

import graphs
import numpy as np

from trimtab.core.ort.peak_memory import peak_bytes
from trimtab.core.ort.session import SessionConfig

OFF = SessionConfig(level="off")
ROW = 4 * 1000  # bytes of (1, 1000) float32


def test_a_chain_has_two_live_values_at_a_time() -> None:
    model = graphs.model_of("""(float[1,1000] x) => (float[1,1000] y) {
        a = Relu (x) b = Neg (a) c = Abs (b) y = Relu (c) }""")
    assert peak_bytes(model, OFF) == 2 * ROW


def test_a_value_lives_until_its_last_reader() -> None:
    model = graphs.model_of("""(float[1,1000] x) => (float[1,1000] y) {
        a = Relu (x) b = Neg (a) c = Abs (b) y = Add (a, c) }""")
    assert peak_bytes(model, OFF) == 3 * ROW


def test_a_value_that_a_branch_captures_lives_until_the_if() -> None:
    model = graphs.model_of("""(float[1,1000] x, bool f) => (float[1,1000] y) {
        a = Relu (x) b = Neg (a) c = Abs (b)
        y = If (f) <
            then_branch = yes () => (float[1,1000] t) { t = Add (a, c) },
            else_branch = no () => (float[1,1000] e) { e = Sub (a, c) }
        > }""")
    assert 3 * ROW <= peak_bytes(model, OFF) < 4 * ROW


def test_weights_and_the_given_feeds_count() -> None:
    model = graphs.model_of(
        "(float[n,1000] x) => (float[n,1000] y) <float[1,1000] w> { y = Add (x, w) }"
    )
    feeds = {"x": np.zeros((3, 1000), np.float32)}
    assert peak_bytes(model, OFF, feeds) == 6 * ROW + ROW
