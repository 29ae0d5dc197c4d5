from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.passes.calibration.histogram import BINS, Histogram


def filled(*batches: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.cover(float(batch.min()), float(batch.max()))
        histogram.add(batch.astype(np.float32))
    return histogram


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), min_size=1, max_size=6
    )
)
def test_no_count_is_lost_however_the_range_grows(batches):
    arrays = [np.array(b, np.float32) for b in batches]
    histogram = filled(*arrays)
    values = np.concatenate(arrays)
    assert histogram.total == len(values)
    assert histogram.start <= values.min()
    assert values.max() <= histogram.start + histogram.width * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), min_size=1, max_size=6
    )
)
def test_values_stay_in_their_bin_after_rebinning(batches):
    arrays = [np.array(b, np.float32) for b in batches]
    histogram = filled(*arrays)
    values = np.sort(np.concatenate(arrays))
    middles = np.sort(np.repeat(histogram.centres, histogram.counts))
    # Half a bin, and half a bin more for float32 at an edge, once for each doubling.
    np.testing.assert_allclose(middles, values, atol=1.1 * histogram.width / BINS + 1e-6)


def test_half_of_the_bins_lie_in_the_data():
    rng = np.random.default_rng(0)
    histogram = filled(*(rng.random(1000) * scale for scale in (0.3, 1, 7, 5, 90)))
    assert np.flatnonzero(histogram.counts)[-1] >= BINS // 2 - 1


def test_a_constant_stream_takes_one_bin():
    histogram = filled(np.full(5, 3.0), np.full(5, 3.0))
    assert np.count_nonzero(histogram.counts) == 1


def test_zeros_then_large_values():
    histogram = filled(np.zeros(5), np.array([1e6]), np.array([-1e3]))
    assert histogram.total == 7
