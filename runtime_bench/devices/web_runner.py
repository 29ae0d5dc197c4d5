"""Outputs of models from a browser: its int8 answers are not those of this machine's kernels."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trimtab.core.batches import finite_batches
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.session import Outputs, SessionConfig
from trimtab.core.runner import run_here

from .base import Closeable
from .web_browser import BrowserPage, WebDevice
from .web_model import WebModel

#: Pages that stay open, each with the model that it ran last, and seconds for a batch.
KEPT, _SECONDS = 2, 120.0


class WebRunner(Closeable):
    """Runs models over data in pages of a browser; see `core.runner.Runner`."""

    def __init__(self, device: WebDevice) -> None:
        self.device = device
        self._folder = tempfile.TemporaryDirectory(prefix="trimtab-web-")
        self._open: collections.OrderedDict[str, tuple[BrowserPage, WebModel]] = (
            collections.OrderedDict()
        )

    def __str__(self) -> str:
        return f"{self.device}, {self.device.version}"

    def __call__(
        self, model: Model, data: Dataset, config: SessionConfig
    ) -> Iterator[tuple[Batch, Outputs]]:
        """Yield each batch with its outputs, in order; a model with states runs here.

        Raises:
            DataError: NaN or infinity in the data.
            RunError: onnxruntime-web refuses the model, or the page dies.
        """
        if data.stream is not None:
            yield from run_here(model, data, config)
            return
        for batch in finite_batches(data):
            page, loaded = self._page(model, config)
            loaded.set_feeds(batch.feeds)
            loaded.feed(page, _SECONDS)
            yield batch, loaded.outputs(page, _SECONDS)

    def _page(self, model: Model, config: SessionConfig) -> tuple[BrowserPage, WebModel]:
        """Return a page that has the model, the one used longest ago where it is a new one."""
        if model.digest not in self._open:
            if len(self._open) >= KEPT:
                self._drop()
            folder = Path(self._folder.name)
            loaded = WebModel(model, model.name, config, folder)
            page = BrowserPage(self.device, folder)
            self._open[model.digest] = page, loaded
            loaded.load(page, _SECONDS)
        self._open.move_to_end(model.digest)
        return self._open[model.digest]

    def _drop(self) -> None:
        _, (page, loaded) = self._open.popitem(last=False)
        page.close()
        loaded.remove()

    def close(self) -> None:
        """End the browsers."""
        while self._open:
            self._drop()
        self._folder.cleanup()
