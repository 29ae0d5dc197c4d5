from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trimtab.core.errors import OptionError
from trimtab.passes.pruning.masks import (
    block_scores,
    count_for_share,
    expand_blocks,
    n_m_mask,
    parse_n_m,
    smallest,
)

# Few distinct values, so that ties are the rule.
scores = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=4, max_side=6), elements=st.integers(0, 3)
)


@given(scores, st.floats(0, 1))
def test_exactly_the_share_goes_and_nothing_larger_than_what_stays(array, share):
    count = count_for_share(share, array.size)
    mask = smallest(array, count)
    assert mask.sum() == count
    if 0 < count < array.size:
        assert array[mask].max() <= array[~mask].min()


@given(scores)
def test_ties_go_by_position(array):
    mask = smallest(np.zeros_like(array), array.size // 2)
    assert mask.reshape(-1)[: array.size // 2].all()


def test_nan_is_never_small():
    assert smallest(np.array([np.nan, 1.0, 2.0]), 1).tolist() == [False, True, False]


@settings(max_examples=50)
@given(st.data(), st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 8)]), st.integers(0, 2))
def test_n_of_every_m_stay_along_the_axis(data, n_m, axis):
    n, m = n_m
    shape = [3, 2, 5]
    shape[axis] = m * data.draw(st.integers(1, 3))
    weight = data.draw(hnp.arrays(np.float32, tuple(shape), elements=st.integers(-2, 2)))
    stays = ~n_m_mask(weight, n, m, axis)
    groups = np.moveaxis(stays, axis, -1).reshape(-1, m)
    assert (groups.sum(axis=1) == n).all()
    kept, gone = (np.where(s, np.abs(weight), f) for s, f in ((stays, np.inf), (~stays, 0)))
    lines = [np.moveaxis(x, axis, -1).reshape(-1, m) for x in (kept, gone)]
    assert (lines[0].min(axis=1) >= lines[1].max(axis=1)).all()


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_a_block_goes_whole_and_the_least_first(axes, norm):
    weight = np.random.default_rng(0).standard_normal((8, 8, 3)).astype(np.float32)
    weight[4:6, 2:4, 1] *= 1e-3
    values = block_scores(weight, (2, 2), axes, norm)
    mask = expand_blocks(smallest(values, 1), (2, 2), axes)
    expected = np.zeros(weight.shape, bool)
    expected[4:6, 2:4, 1] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_block_s_importance_reads_in_units_of_a_weight():
    weight = np.full((4, 4), 0.5, np.float32)
    for norm in ("l1", "l2"):
        np.testing.assert_allclose(block_scores(weight, (4, 1), (0, 1), norm), 0.5)


@pytest.mark.parametrize("pattern", ["0:4", "4:4", "5:4"])
def test_refuses_pairs_that_keep_none_or_all(pattern):
    with pytest.raises(OptionError, match=pattern):
        parse_n_m(pattern)


def test_knows_a_pair_from_another_word():
    assert parse_n_m("2:4") == (2, 4)
    assert parse_n_m("block") is None
