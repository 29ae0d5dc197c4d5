"""Trials of inputs that a model may refuse, and what its interface says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import OptionError, RunError, nearest
from ..model import Model, TensorSpec
from ..units import sizes_text
from .session import Feeds, SessionConfig, build_session, run


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
        self.shapes.append(" ".join(f"{n}={sizes_text(np.shape(a))}" for n, a in feeds.items()))
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


def check_shapes(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check shapes by input name against the model's inputs.

    Raises:
        OptionError: there is no such input, or its declared shape does not allow this one.
    """
    specs = {spec.name: spec for spec in model.inputs}
    for name, shape in shapes.items():
        if name not in specs:
            raise OptionError(
                f"the model has no input {name!r}", where="--shape", hint=nearest(name, specs)
            )
        if not takes_shape(specs[name], shape):
            raise OptionError(
                f"{name}={sizes_text(shape)} does not fit the model's input {specs[name]}",
                where="--shape",
            )
        if 0 in shape and specs.keys() <= {n for n, sizes in shapes.items() if 0 in sizes}:
            raise OptionError(
                f"{name}={sizes_text(shape)} leaves the model nothing to run on",
                where="--shape",
                hint="Give sizes above 0; 0 is for a cache that is empty yet, beside other inputs",
            )


def takes_shape(spec: TensorSpec, shape: Sequence[int]) -> bool:
    """Return whether the declared shape of an input allows this one."""
    return spec.shape is None or (
        len(spec.shape) == len(shape)
        and all(not isinstance(d, int) or d == n for d, n in zip(spec.shape, shape, strict=True))
    )
