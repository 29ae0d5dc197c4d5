"""Durations, sizes, shapes and latency limits as users write them."""

from __future__ import annotations

import pytest

from trimtab.core.errors import OptionError
from trimtab.core.units import duration, percentile, shape, size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5ms", 5e-3), ("30s", 30), ("10m", 600), ("1.5h", 5400), ("2", 2), ("7 us", 7e-6)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"), [("4MB", 4_000_000), ("512KiB", 524_288), ("100", 100), ("1.5 GB", 1.5e9)]
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


def test_shapes_and_limits() -> None:
    assert shape("a.b/c=1x3x224x224") == ("a.b/c", (1, 3, 224, 224))
    assert percentile("p99=5ms") == (99, pytest.approx(5e-3))


@pytest.mark.parametrize("text", ["", "fast", "-3s", "0", "5 parsecs", "1.2.3s", "nan"])
def test_a_bad_duration_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is not a duration"):
        duration(text)


@pytest.mark.parametrize("text", ["", "input", "input=", "=1x2", "input=1xbx3", "input=1x-2"])
def test_a_bad_shape_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is not a valid shape"):
        shape(text)


@pytest.mark.parametrize("text", ["p95", "95=5ms", "p100=5ms", "p0=1ms", "p95=fast"])
def test_a_bad_limit_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        percentile(text)
