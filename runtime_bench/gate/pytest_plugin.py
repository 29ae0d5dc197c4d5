"""The pytest plugin: latency budgets as tests.

    @pytest.mark.latency(p95="5ms", min_speedup=1.5, max_time=30)
    def test_int8(latency):
        latency.compare("int8.onnx", baseline="float.onnx", require_int8=0.9)

It fails in the call phase, so `-x`, `--lf` and JUnit see it. Every run of pytest loads it, so
nothing heavy is imported before a test measures.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from trimtab.core.errors import TrimtabError, nearest

if TYPE_CHECKING:
    from trimtab.core.model import Model
    from trimtab.core.ort.session import Feeds

    from .verdicts import BudgetVerdict

#: Keywords of the marker beside percentiles.
KEYWORDS = (
    *("min_speedup", "tolerance", "max_time", "alpha", "resolution"),
    *("size", "rss", "load", "first"),
)
PERCENTILE = re.compile(r"p\d{1,2}(_\d+|_quiet)?")
CHOICES = ("pass", "skip", "fail")


class LatencyWarning(UserWarning):
    """A latency budget could not be decided."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    group = parser.getgroup("latency", "latency budgets (trimtab)")
    group.addoption(
        "--latency-inconclusive",
        choices=CHOICES,
        default="pass",
        help="result of an undecided budget: pass with a warning (default), skip, or fail",
    )
    group.addoption(
        "--latency-max-time",
        metavar="30s",
        help="time limit of measuring for each test, instead of the marker's",
    )
    group.addoption("--latency-only", action="store_true", help="run only tests marked `latency`")
    group.addoption("--latency-skip", action="store_true", help="skip the tests marked `latency`")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, for --strict-markers as well."""
    config.addinivalue_line(
        "markers",
        "latency(p95=..., min_speedup=..., max_time=..., alpha=...): budgets of `latency.compare`",
    )
    if config.getoption("--latency-only") and config.getoption("--latency-skip"):
        raise pytest.UsageError("--latency-only and --latency-skip exclude each other")
    text = config.getoption("--latency-max-time")
    if text:
        from trimtab.core.units import duration

        try:
            duration(text)
        except TrimtabError as error:
            raise pytest.UsageError(f"--latency-max-time: {error}") from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse misspelt markers before any test runs; select or skip tests."""
    for item in items:
        for mark in item.iter_markers("latency"):
            _check_marker(mark, item)
    marked = [item for item in items if item.get_closest_marker("latency")]
    if config.getoption("--latency-only"):
        config.hook.pytest_deselected(items=[i for i in items if i not in marked])
        items[:] = marked
    if config.getoption("--latency-skip"):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="--latency-skip"))


def _check_marker(mark: pytest.Mark, item: pytest.Item) -> None:
    if mark.args:
        raise pytest.UsageError(
            f"{item.nodeid}: @pytest.mark.latency takes keywords only, such as p95='5ms'"
        )
    for name in mark.kwargs:
        if name not in KEYWORDS and not PERCENTILE.fullmatch(name):
            hint = nearest(name, ["p50", "p95", "p99", *KEYWORDS])
            raise pytest.UsageError(
                f"{item.nodeid}: @pytest.mark.latency has no keyword {name!r}. {hint}"
            )


@pytest.fixture
def latency(request: pytest.FixtureRequest, record_property: Any) -> Latency:
    """Measure models under the budgets of the test's `latency` marker."""
    marks = list(request.node.iter_markers("latency"))
    asked: dict[str, Any] = {}
    for mark in reversed(marks):  # the closest one, which is the first, wins
        asked |= mark.kwargs
    text = request.config.getoption("--latency-max-time")
    if text:
        asked["max_time"] = text
    return Latency(asked, request.config.getoption("--latency-inconclusive"), record_property)


class Latency:
    """Value of the fixture `latency`: undecided budgets of the marker pass, skip or fail a test."""

    def __init__(self, asked: Mapping[str, Any], on_inconclusive: str, record: Any) -> None:
        self.asked, self.on_inconclusive, self.record = dict(asked), on_inconclusive, record

    def compare(
        self,
        model: str | Model,
        *,
        baseline: str | Model | None = None,
        feeds: Feeds | None = None,
        provider: str = "CPUExecutionProvider",
        threads: int = 1,
        require_int8: float | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> list[BudgetVerdict]:
        """Measure a model, interleaved with its baseline, and check the marker's budgets.

        Without `min_speedup` in the marker, the model may not be slower than the baseline, within
        the marker's `tolerance`.

        Args:
            model: a file or a model in memory.
            baseline: reference to compare with.
            feeds: arrays by input name; random values where None.
            provider: execution provider; every matrix product and convolution must run on it.
            threads: intra-op threads.
            require_int8: least share of the multiply-accumulates in int8 kernels.
            shapes: shapes of inputs with dynamic axes, where there are no feeds.

        Returns:
            The verdicts, all passed or undecided.

        Raises:
            AssertionError: a budget is broken; the message is the evidence.
            TrimtabError: a model cannot be used.
        """
        __tracebackhide__ = True
        from .pytest_run import LatencyRequest, measure

        request = LatencyRequest(
            model, baseline, feeds, provider, threads, require_int8, shapes or {}, self.asked
        )
        verdicts, properties = measure(request)
        for name, value in properties.items():
            self.record(name, value)
        self._conclude(verdicts)
        return verdicts

    def _conclude(self, verdicts: list[BudgetVerdict]) -> None:
        __tracebackhide__ = True
        broken = [r for r in verdicts if r.verdict == "fail"]
        undecided = [r for r in verdicts if r.verdict == "inconclusive"]
        if broken:
            raise AssertionError(_message("latency budgets are broken", broken + undecided))
        if not undecided:
            return
        text = _message("latency budgets are undecided", undecided)
        if self.on_inconclusive == "fail":
            raise AssertionError(text)
        if self.on_inconclusive == "skip":
            pytest.skip(text)
        warnings.warn(text, LatencyWarning, stacklevel=3)


def _message(title: str, verdicts: list[BudgetVerdict]) -> str:
    return "\n".join([title, *(f"  {r.budget}: {r.verdict}: {r.evidence}" for r in verdicts)])
