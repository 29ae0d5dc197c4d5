"""Trials of inputs that a model may refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import RunError
from ..model import Model
from .session import Feeds, SessionConfig, build_session, run


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as text that --shape takes; `scalar` where it has no axis."""
    return "x".join(str(d) for d in shape) or "scalar"


class FeedTrial:
    """Runs of a model on inputs that it may refuse."""

    def __init__(self, model: Model, session: Any) -> None:
        self._model, self._session = model, session
        self.shapes: list[str] = []
        self.refusal = ""

    def loads(self) -> bool:
        """Return whether onnxruntime loads the model."""
        if self._session is None:
            plain = SessionConfig(level="basic").for_one_run(self._model)
            try:
                self._session = build_session(self._model, plain)
            except RunError as error:
                self.refusal = error.what
        return self._session is not None

    def runs(self, feeds: Feeds) -> str:
        """Return `fine`, `poor` where no output has a number, or `refused`."""
        if not self.loads():
            return "refused"
        self.shapes.append(" ".join(f"{n}={shape_text(np.shape(a))}" for n, a in feeds.items()))
        try:
            found = run(self._session, feeds, quiet=True)
        except RunError as error:
            self.refusal = error.what
            return "refused"
        return "fine" if not found or any(map(_tells, found.values())) else "poor"


def _tells(output: Any) -> bool:
    """Return whether an output has a number in it."""
    array = np.asarray(output)
    return bool(array.size and (array.dtype.kind not in "fc" or np.isfinite(array).any()))
