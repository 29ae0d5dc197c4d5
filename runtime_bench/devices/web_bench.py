"""Bench in a browser: onnxruntime-web in pages of Chromium, over loopback."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.data import Array
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds, SessionConfig, build_session, run
from trimtab.core.progress import Progress, Silent
from trimtab.core.target import Target, usable_cpus

from ..bench.bench import Timing
from ..machine.environment import Environment
from ..machine.placement import Placement
from ..measure.contenders.subprocess_contender import PATIENCE, hang_limit
from ..measure.timing import Runs
from .contender_bench import ContenderBench
from .web_browser import NODE, BrowserPage, WebDevice
from .web_model import WebModel

#: Runs after a session was built anew, before it is timed.
_SETTLE = 5
_NO_TIMES = "web:webgpu runs on a software adapter here: its times mean nothing"


class WebContender:
    """A model in a page of its own; its times are the page's, around `session.run` alone."""

    always_new = False
    placement: Placement | None = None

    def __init__(
        self,
        device: WebDevice,
        source: Model | Path,
        name: str,
        config: SessionConfig,
        folder: Path,
        *,
        progress: Progress,
        limit: float,
    ) -> None:
        self.name, self._config, self._progress, self._limit = name, config, progress, limit
        self._source, self._folder = source, folder
        self._there: WebModel | None = None
        self._run_seconds = 0.0
        self.worker = BrowserPage(device, folder)

    def warm(self, feeds: Feeds) -> float:
        """Load the model, run it once, and tell how far its outputs are from those here."""
        model = self._source if isinstance(self._source, Model) else Model.load(self._source)
        self._there = WebModel(model, self.name, self._config, self._folder)
        self._there.set_feeds(feeds)
        self._load()
        first = self.time(1).ns[0]
        found = self._there.outputs(self.worker, self._patience)
        expected = run(build_session(model, SessionConfig()), feeds)
        self._progress.say(
            f"{self.name}: outputs in {self.worker.device} differ from those here by "
            f"{difference(expected, found):.2g} of the largest value"
        )
        return float(first)

    def renew(self) -> None:
        """See `Contender`."""
        self._load()
        self.time(_SETTLE)

    def time(self, runs: int) -> Runs:
        """See `Contender`."""
        answer = self.worker.ask(self.name, "run", self._patience, do="time", runs=runs)
        ns = tuple(int(n) for n in answer["ns"])
        self._run_seconds = max(self._run_seconds, sum(ns) / 1e9)
        return Runs(ns)

    def close(self) -> None:
        """See `Contender`."""
        self.worker.close()

    @property
    def _patience(self) -> float:
        return self._limit + PATIENCE * self._run_seconds

    def _load(self) -> None:
        assert self._there is not None
        self._there.load(self.worker, self._patience)
        self._there.feed(self.worker, self._patience)


def difference(expected: Mapping[str, Any], found: Mapping[str, Array]) -> float:
    """Return the largest difference of outputs, as a share of the largest value of each."""
    worst = 0.0
    for name, array in expected.items():
        if name not in found or found[name].shape != array.shape:
            return float("inf")
        here, there = array.astype(np.float64), found[name].astype(np.float64)
        largest = np.abs(here).max(initial=0) or 1.0
        worst = max(worst, float(np.abs(here - there).max(initial=0) / largest))
    return worst


class WebBench(ContenderBench):
    """Chromium of this machine: each contender is a browser of its own, with one page.

    Raises:
        OptionError: Chromium or onnxruntime-web is missing.
    """

    no_costs = "load time and memory are not measured in a browser"
    no_diagnosis = "a browser does not report what it runs"
    instead = "--target webgpu-web or --target webnn"

    def __init__(self, device: WebDevice, progress: Progress | None = None) -> None:
        self.device, self.progress = device, progress or Silent()
        self._folder = tempfile.TemporaryDirectory(prefix="trimtab-web-")
        if device.provider == "webgpu":
            self.progress.say(_NO_TIMES)

    @property
    def unmeasured(self) -> dict[str, str]:
        """See `ContenderBench`; without a GPU there are no times either."""
        timed = ("ratio", "tail") if self.device.provider == "webgpu" else ()
        return super().unmeasured | dict.fromkeys(timed, _NO_TIMES)

    def close(self) -> None:
        """Remove what was served."""
        self._folder.cleanup()

    def environment(self) -> Environment:
        """See `Bench`."""
        here = Environment.here()
        return replace(here, onnxruntime=f"{self.device.provider} of {self.device.version}")

    def target(self, threads: int | None) -> Target:
        """See `Bench`: WASM sums 8-bit products in 32 bits, on vectors of four floats."""
        if self.device.provider == NODE:  # it has this machine's own kernels
            return Target.detect(threads)
        count = threads or usable_cpus()
        return Target("detected", isa="any", threads=count, float_block=4, int8_block=4)

    def _contender(
        self, source: Any, name: str, config: SessionConfig, how: Timing
    ) -> WebContender:
        if how.concurrency != 1 or how.in_process:
            raise OptionError("a page has one caller", where="--concurrency, --in-process")
        if config.provider != "CPUExecutionProvider":
            raise OptionError(
                "a browser has providers of its own",
                where=f"--provider {config.provider}",
                hint="Write --on web:webgpu",
            )
        limit = hang_limit(how.max_seconds)
        folder = Path(self._folder.name)
        return WebContender(
            self.device, source, name, config, folder, progress=self.progress, limit=limit
        )
