"""Feeds of models during a measurement, and the check that all models take the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trimtab.core.errors import InputError, OptionError, nearest
from trimtab.core.model import Model, TensorSpec
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import Feeds

#: Suggested sizes of a dynamic axis, by a word in its name; the last for any other.
SUGGESTED = (("batch", 1), ("seq", 128), ("len", 128), ("height", 224), ("width", 224), ("", 16))


def make_feeds(
    model: Model,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    batch: int | None = None,
    seed: int = 0,
) -> Feeds:
    """Make random inputs of the shapes that the model fixes or the user gives by input name.

    The `batch` is the size of a leading dynamic axis that `shapes` does not give.

    Raises:
        OptionError: a dynamic axis has no size, a shape does not fit, or an input is unknown.
    """
    shapes = dict(shapes or {})
    names = [spec.name for spec in model.inputs]
    for name in shapes:
        if name not in names:
            raise OptionError(
                f"the model has no input {name!r}", where="--shape", hint=nearest(name, names)
            )
    resolved = {s.name: _resolve(s, shapes.get(s.name), batch, model.name) for s in model.inputs}
    fixed = model.clone()
    for value in fixed.graph.inputs:
        if value.name in resolved:
            value.shape = type(value.shape)(resolved[value.name]) if value.shape else None
    return random_feeds(fixed, seed=seed)


def _resolve(
    spec: TensorSpec, shape: tuple[int, ...] | None, batch: int | None, where: str
) -> tuple[int, ...]:
    axes = spec.shape
    if axes is None:
        if shape is None:
            raise OptionError(
                f"input {spec.name!r} has no known rank",
                where=where,
                hint=f"Give its shape, for example --shape {spec.name}=1x3x224x224",
            )
        return shape
    if shape is not None:
        fits = [not isinstance(d, int) or d == s for d, s in zip(axes, shape, strict=False)]
        if len(axes) != len(shape) or not all(fits):
            raise OptionError(
                f"{spec.name}={_text(shape)} does not fit the model's input {spec}", where="--shape"
            )
        return shape
    sizes = [batch if i == 0 and not isinstance(d, int) else d for i, d in enumerate(axes)]
    if not all(isinstance(d, int) for d in sizes):
        suggested = tuple(_suggest(d, i) for i, d in enumerate(sizes))
        raise OptionError(
            f"input {spec} has a dynamic axis, and a measurement needs its size",
            where=where,
            hint=f"Give the size you deploy, for example --shape {spec.name}={_text(suggested)}",
        )
    return tuple(d for d in sizes if isinstance(d, int))


def _suggest(axis: int | str | None, position: int) -> int:
    if isinstance(axis, int):
        return axis
    if position == 0:
        return 1
    return next(size for word, size in SUGGESTED if word in (axis or "").lower())


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
            axes = tuple(d if isinstance(d, int) else None for d in spec.shape or ())
            wrong = spec.shape is not None and (
                len(axes) != array.ndim
                or any(d not in {None, s} for d, s in zip(axes, array.shape, strict=True))
            )
            if wrong or array.dtype != spec.dtype.numpy():
                raise InputError(
                    f"takes {spec}, and is fed {_text(array.shape)} {array.dtype}",
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
    return {name: f"{_text(a.shape)} {a.dtype}" for name, a in feeds.items()}


def write_feeds(feeds: Feeds, path: Path) -> Path:
    """Write the inputs of one run as `.npz`, without pickle, and return the path."""
    plain = {n: a.astype(str) if a.dtype == object else a for n, a in feeds.items()}
    np.savez(path, **plain)  # type: ignore[arg-type] # its stub takes names for options
    return path


def read_feeds(file: Path | BinaryIO) -> Feeds:
    """Read inputs that `write_feeds` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _text(shape: Sequence[int]) -> str:
    return "x".join(str(d) for d in shape) or "scalar"
