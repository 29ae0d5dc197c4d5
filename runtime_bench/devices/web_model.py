"""A model in a page: loading it there, feeding it, and its outputs."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.data import Array
from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.core.target import usable_cpus

from ..measure.workers.protocol import Message
from .web_browser import BrowserPage

_LEVELS = {"off": "disabled"}


class WebModel:
    """A model whose files are in the folder that pages are served from."""

    def __init__(self, model: Model, name: str, config: SessionConfig, folder: Path) -> None:
        self.name, self.config, self._folder = name, config, folder
        self._key, self._tensors = uuid.uuid4().hex, list[Message]()
        self._file = folder / f"{self._key}.onnx"
        self._file.write_bytes(model.to_bytes())

    def set_feeds(self, feeds: Feeds) -> None:
        """Write the inputs of the next runs.

        Raises:
            RunError: one is not a tensor of numbers.
        """
        self._tensors = []
        for index, (name, array) in enumerate(feeds.items()):
            if array.dtype.kind not in "fiub":
                raise RunError(f"{name!r} is not a tensor of numbers", where=self.name)
            file = f"{self._key}-{index}.bin"
            (self._folder / file).write_bytes(np.ascontiguousarray(array).tobytes())
            shape = list(array.shape)
            self._tensors.append(
                {"name": name, "type": array.dtype.name, "shape": shape, "file": file}
            )

    def load(self, page: BrowserPage, limit: float) -> None:
        """Build the session in a page."""
        level = _LEVELS.get(self.config.level, self.config.level)
        threads = self.config.threads or usable_cpus()
        told = {"model": self._file.name, "threads": threads, "level": level}
        page.ask(self.name, "load", limit, do="load", **told)

    def feed(self, page: BrowserPage, limit: float) -> None:
        """Give a page the inputs that were set."""
        page.ask(self.name, "take its feeds", limit, do="feed", tensors=self._tensors)

    def outputs(self, page: BrowserPage, limit: float) -> dict[str, Array]:
        """Run once and return the outputs by name."""
        answer = page.ask(self.name, "give its outputs", limit, do="outputs")
        return {tensor["name"]: _array(tensor) for tensor in answer["outputs"]}

    def remove(self) -> None:
        """Remove its files."""
        for path in self._folder.glob(f"{self._key}*"):
            path.unlink()


def _array(tensor: Mapping[str, Any]) -> Array:
    data = base64.b64decode(tensor["data"])
    found: Array = np.frombuffer(data, tensor["type"]).reshape([int(n) for n in tensor["shape"]])
    return found
