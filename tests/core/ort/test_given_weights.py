"""Sessions of large models that read their weights where they lie."""

from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import graph

from trimtab.core.ort import given_weights as given
from trimtab.core.ort import session as session_module
from trimtab.core.ort.session import SessionConfig, build_session, run


def network():
    """A product whose weight is used, one that nothing reads, and a shape that decides."""
    return graph(
        """g (float[N, 64] x) => (float[N, 8, 8] y) {
          h = MatMul (x, w)
          y = Reshape (h, shape)
        }""",
        w=(64, 64),
        shape=np.array([-1, 8, 8]),
        unread=(10, 10),
    )


@pytest.fixture
def large(monkeypatch):
    """Models and weights of any size count as large."""
    monkeypatch.setattr(given, "LARGE_MODEL", 0)
    monkeypatch.setattr(given, "LARGE", 300)


def answers(model, **options):
    session = build_session(model, SessionConfig(), **options)
    feeds = {"x": np.ones((2, 64), np.float32)}
    return session, run(session, feeds)["y"]


def test_answers_are_those_of_a_session_with_its_own_weights(large):
    model = network()
    session, found = answers(model)
    plain, wanted = answers(model, copied=True)
    assert list(session.trimtab_given.weights) == ["w"]
    assert plain.trimtab_given is None
    np.testing.assert_array_equal(found, wanted)


def test_sessions_of_a_fixed_model_share_one_message_and_the_arrays_of_the_graph(large):
    model = network().fixed()
    first, second = model.to_shell(300), model.to_shell(300)
    assert first is second
    assert len(first[0]) < 1000 < first[1]["w"].nbytes
    weight = model.graph.initializers["w"].const_value
    assert np.shares_memory(first[1]["w"], weight.numpy())
    np.testing.assert_array_equal(answers(model)[1], answers(model)[1])


def test_small_models_and_optimized_graphs_keep_their_weights(tmp_path, large, monkeypatch):
    model = network()
    saved = build_session(model, SessionConfig(), save_to=tmp_path / "m.onnx")
    assert saved.trimtab_given is None
    assert (tmp_path / "m.onnx").stat().st_size > 64 * 64 * 4
    monkeypatch.setattr(given, "LARGE_MODEL", 1 << 20)
    assert answers(model)[0].trimtab_given is None


def test_a_message_too_large_without_its_large_weights_goes_via_a_file(large, monkeypatch):
    """Weights of types that numpy lacks, of subgraphs, and those that nothing reads stay inside."""
    model = network()
    unread = 10 * 10 * 4
    wanted = answers(model, copied=True)[1]
    monkeypatch.setattr(session_module, "EXTERNAL_DATA_BYTES", 100)
    for most, given_ones in ((unread + 100, ["w"]), (unread - 1, None)):
        monkeypatch.setattr(given, "EXTERNAL_DATA_BYTES", most)
        session, found = answers(model)
        held = session.trimtab_given
        assert (held and list(held.weights)) == given_ones
        np.testing.assert_array_equal(found, wanted)


def test_a_model_without_weights_to_give_is_loaded_as_ever(large, monkeypatch):
    monkeypatch.setattr(given, "LARGE", 1 << 20)
    assert answers(network())[0].trimtab_given is None
