"""Repair of pruned models: what rows that nothing was fitted to say, and what it costs."""

from __future__ import annotations

from collections.abc import Callable

import graphs
import numpy as np
import pytest
from channel_models import TARGET, step

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.passes.pruning.channels import PruneChannels
from trimtab.passes.pruning.structured import moments as second_moments
from trimtab.passes.pruning.structured.loss_curves import ReaderSolution
from trimtab.passes.pruning.structured.moments import HeldOut, Moments, MomentSums, Reader
from trimtab.passes.pruning.structured.regression import ReaderWeights, choose, dampened, pulled

Rows = Callable[[int], np.ndarray]


def images(count: int, seed: int = 0) -> np.ndarray:
    """Pictures of a few directions and some noise, (count, 1, 16, 16)."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(9).normal(size=(8, 256))
    flat = np.tanh(rng.normal(size=(count, 8)) @ mix / 2 + 0.3 * rng.normal(size=(count, 256)))
    return flat.reshape(count, 1, 16, 16).astype(np.float32)


def narrowing(c: int = 48) -> Model:
    """Convolutions of stride 2, the last of which see a single position of each sample."""
    return graphs.model_of(
        "(float[N, 1, 16, 16] x) => (float[N, 8, 1, 1] y) "
        f"<float[{c},1,3,3] w0, float[{c},{c},3,3] w1, float[{c},{c},3,3] w2, "
        f"float[{c},{c},3,3] w3, float[8,{c},1,1] w4>"
        "{ a = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w0) b = LeakyRelu<alpha=0.2>(a) "
        "c = Conv<strides=[2,2], pads=[1,1,1,1]>(b, w1) d = LeakyRelu<alpha=0.2>(c) "
        "e = Conv<strides=[2,2], pads=[1,1,1,1]>(d, w2) f = LeakyRelu<alpha=0.2>(e) "
        "g = Conv<strides=[2,2], pads=[1,1,1,1]>(f, w3) y = Conv(g, w4) }"
    )


def unseen_error(before: Model, after: Model) -> float:
    feeds = {"x": images(128, seed=7)}
    a, b = (run(build_session(m), feeds)["y"] for m in (before, after))
    return float(np.sqrt(np.square(a - b).mean() / np.square(a).mean()))


@pytest.mark.parametrize("samples", [2, 12, 48])
def test_few_positions_are_not_fitted_to_noise(samples: int) -> None:
    model = narrowing()
    ctx = Context(target=TARGET, data=Dataset.of_arrays({"x": images(samples)}))
    options = {"ratio": 0.15, "block": 1, "importance": "l2"}
    error = {
        repair: unseen_error(model, PruneChannels(**options, repair=repair)(model, ctx))
        for repair in ("none", "least_squares")
    }
    assert error["least_squares"] <= 1.02 * error["none"]
    if samples == 48:
        assert error["least_squares"] < 0.7 * error["none"]


def test_wide_kernels_are_repaired_pixel_by_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrowing()
    ctx = Context(target=TARGET, data=Dataset.of_arrays({"x": images(48)}))
    options = {"ratio": 0.15, "block": 1}
    monkeypatch.setattr(second_moments, "WIDE", 64)
    plain = PruneChannels(**options, repair="none")(model, ctx)
    repaired = PruneChannels(**options)(model, ctx)
    assert unseen_error(model, repaired) < 0.8 * unseen_error(model, plain)
    assert step(repaired)["repaired"] > 0


def test_a_shared_weight_stays_one() -> None:
    model = graphs.model_of(
        "(float[N, 3, 8, 8] x, float[N, 3, 8, 8] z) => (float[N, 4, 8, 8] y) "
        "<float[16,3,3,3] w0, float[16,16,3,3] w1, float[4,16,1,1] w2>"
        "{ a = Conv<pads=[1,1,1,1]>(x, w0) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, w1) "
        "d = Conv<pads=[1,1,1,1]>(z, w0) e = Relu(d) f = Conv<pads=[1,1,1,1]>(e, w1) "
        "g = Add(c, f) y = Conv(g, w2) }"
    )
    rng = np.random.default_rng(0)
    feeds = {n: rng.standard_normal((32, 3, 8, 8)).astype(np.float32) for n in "xz"}
    after = PruneChannels(0.5)(model, Context(target=TARGET, data=Dataset.of_arrays(feeds)))
    weights = [v.const_value.shape for v in after.graph.initializers.values()]
    assert sorted(len(s) for s in weights).count(4) == 3


@pytest.fixture
def problem() -> tuple[Moments, np.ndarray, Rows]:
    """Moments of many rows with known weights, these, and a maker of rows."""
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(3, 6))

    def rows(count: int) -> np.ndarray:
        return np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)

    x = rows(4000)
    xx = x.T.astype(np.float64) @ x / len(x)
    return Moments(np.zeros(6), np.zeros(3), xx, xx @ weight.T), weight, rows


def test_damping_moves_between_the_solution_and_the_old_weights(problem) -> None:
    found, weight, _ = problem
    old = weight + 1
    np.testing.assert_allclose(pulled(found, old, 1e-9), weight, atol=1e-6)
    np.testing.assert_allclose(pulled(found, old, 1e9), old, atol=1e-6)


def test_held_out_rows_choose(problem) -> None:
    found, weight, rows = problem
    x = rows(50)
    held = HeldOut(x, (x @ weight.T).astype(np.float32))
    families = lambda old: [dampened(lambda _: found, old)]  # noqa: E731
    zero = lambda w, _: np.zeros(len(w))  # noqa: E731
    wrong = ReaderWeights(weight + 1, np.zeros(3))
    chosen = choose(wrong, families(wrong.weight), held, zero, refit=False)
    assert chosen is not None
    np.testing.assert_allclose(chosen.weight, weight, atol=1e-3)
    right = ReaderWeights(weight, np.zeros(3))
    noisy = Moments(found.mean_x, found.mean_y, found.xx, found.xy + 0.3)
    assert choose(right, [dampened(lambda _: noisy, weight)], held, zero, refit=False) is None


def test_products_of_rows_are_all_that_a_loss_curve_needs(problem) -> None:
    found, _, _ = problem
    many = np.random.default_rng(5).normal(size=(40, 6))
    wide = Moments(found.mean_x, np.zeros(40), found.xx, found.xx @ many.T)
    solution = ReaderSolution.of(wide, 1.0)
    assert solution.weights.shape == (6, 6)
    places = np.arange(6)[:, None]
    exact = np.square(many).sum(axis=0) / np.diag(np.linalg.inv(found.xx))
    np.testing.assert_allclose(solution.increase(places), exact, rtol=1e-3)
    solution.remove(np.array([2]))
    left = np.delete(np.arange(6), 2)
    cov = found.xx
    solved = (
        many[:, left] + many[:, [2]] @ np.linalg.solve(cov[np.ix_(left, left)], cov[left, 2:3]).T
    )
    inverse = np.linalg.inv(cov[np.ix_(left, left)])
    expected = np.square(solved).sum(axis=0) / np.diag(inverse)
    np.testing.assert_allclose(solution.increase(places[left]), expected, rtol=1e-3)


def test_a_quarter_of_the_only_batch_is_held_out() -> None:
    model = narrowing(8)
    node = next(n for n in model.graph if n.op_type == "Conv")
    reader = Reader.of(node)
    assert reader is not None
    sums = MomentSums(reader, 1, 0, held_rows=1 << 10)
    sums.add(images(8), np.zeros((8, 8, 8, 8), np.float32))
    assert sums.count == 6 * 64
    held = sums.held_out()
    assert held is not None
    assert len(held.x) == 2 * 64
