"""Feeds of models during a measurement, and the check that all models take the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trimtab.core.errors import InputError
from trimtab.core.model import Model
from trimtab.core.ort.feed_trial import takes_shape
from trimtab.core.ort.session import Feeds
from trimtab.core.text import shape_text
from trimtab.core.units import sizes_text


def check_same_inputs(models: Sequence[Model], feeds: Feeds) -> None:
    """Check that all models take the feeds: same names, same types, and shapes that fit.

    Raises:
        InputError: a model does not; the message names the input and the difference.
    """
    base = models[0]
    for model in models:
        _check_names(base, model, feeds)
        for spec in model.inputs:
            array = feeds[spec.name]
            if not takes_shape(spec, array.shape) or not spec.takes_type(array.dtype):
                raise InputError(
                    f"takes {spec}, and is fed {shape_text(array.shape)} {array.dtype}",
                    where=model.name,
                    hint="Compare models that take the same inputs; give --shape or --data that "
                    "fits all of them",
                )


def _check_names(base: Model, model: Model, feeds: Feeds) -> None:
    names = {spec.name for spec in model.inputs}
    if names == set(feeds):
        return
    against = "the feeds hold" if model is base else f"{base.name} takes"
    raise InputError(
        f"takes the inputs {', '.join(sorted(names)) or 'none'}; "
        f"{against} {', '.join(sorted(feeds)) or 'none'}",
        where=model.name,
        hint="Models can be compared only on the same inputs",
    )


def describe(feeds: Feeds) -> dict[str, str]:
    """Return the shape and type of each input, for reports."""
    return {name: f"{sizes_text(a.shape)} {a.dtype}" for name, a in feeds.items()}


def write_feeds(feeds: Feeds, path: Path) -> Path:
    """Write the inputs of one run as `.npz`, without pickle, and return the path."""
    plain = {n: a.astype(str) if a.dtype == object else a for n, a in feeds.items()}
    np.savez(path, **plain)  # type: ignore[arg-type] # its stub takes names for options
    return path


def read_feeds(file: Path | BinaryIO) -> Feeds:
    """Read inputs that `write_feeds` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
