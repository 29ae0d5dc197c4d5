"""Inputs of a measurement, whose sizes the model or the user fixes: they are never guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ..errors import InputError, OptionError
from ..model import Model, TensorSpec
from .feeding import FeedSource, check_shapes, feeding, shape_text
from .session import Feeds

#: Suggested sizes of a dynamic axis, by a word in its name; the last for any other.
SUGGESTED = (("batch", 1), ("seq", 128), ("len", 128), ("height", 224), ("width", 224), ("", 16))
#: Suggested sides of a picture.
PICTURE = 224

Sizes = Mapping[str, tuple[int, ...]]


def given_feeds(
    model: Model, shapes: Sizes | None = None, *, batch: int = 1, seed: int = 0
) -> Feeds:
    """Return inputs of the shapes that the model fixes or the user gives by input name.

    A name of a size has one size in all inputs: that of a given shape, or `batch` where it is that
    of a leading axis. Other leading axes that are free have the size `batch` too.

    Raises:
        OptionError: a dynamic axis has no size, a shape does not fit, or an input is unknown.
        InputError: onnxruntime refuses these sizes.
    """
    shapes = dict(shapes or {})
    check_shapes(model, shapes)
    leading = [spec.shape[0] for spec in model.inputs if spec.shape]
    named = {d: batch for d in leading if isinstance(d, str) and d} | {
        str(d): size
        for spec in model.inputs
        for d, size in zip(spec.shape or (), shapes.get(spec.name, ()), strict=False)
        if isinstance(d, str) and d
    }
    found = {s.name: shapes.get(s.name) or _resolved(s, named, batch) for s in model.inputs}
    known = {name: shape for name, shape in found.items() if shape is not None}
    missing = [spec for spec in model.inputs if found[spec.name] is None]
    if missing:
        example = _example(model, known, missing)
        what = "no known rank" if missing[0].shape is None else "a dynamic axis"
        raise OptionError(
            f"input {missing[0]} has {what}, and a measurement needs its size",
            where=model.name,
            hint=f"Give the size you deploy, for example {example}",
        )
    fixed = model.clone()
    for value in fixed.graph.inputs:
        if str(value.name) in known:
            value.shape = ir.Shape(known[str(value.name)])
    return feeding(fixed, FeedSource(), seed=seed).feeds


def _resolved(spec: TensorSpec, named: Mapping[str, int], batch: int) -> tuple[int, ...] | None:
    if spec.shape is None:
        return None
    sizes = [
        d if isinstance(d, int) else named.get(str(d), batch if i == 0 else None)
        for i, d in enumerate(spec.shape)
    ]
    known = tuple(d for d in sizes if d is not None)
    return known if len(known) == len(sizes) else None


def _example(model: Model, known: Sizes, missing: Sequence[TensorSpec]) -> str:
    """Return options that give the missing sizes: usual ones, else ones that the model takes."""
    shapes = {s.name: _suggested(s) for s in missing}
    try:
        feeding(model, FeedSource(shapes={**known, **shapes}))
    except InputError:
        try:
            feeds = feeding(model, FeedSource(shapes=known)).feeds
            shapes = {spec.name: feeds[spec.name].shape for spec in missing}
        except InputError:
            pass  # nothing better is known than the usual sizes
    return " ".join(f"--shape {name}={shape_text(shape)}" for name, shape in shapes.items())


def _suggested(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(
        size
        if isinstance(size, int)
        else _suggest(size or "", axis, picture=len(spec.shape or ()) == 4)
        for axis, size in enumerate(spec.shape or ())
    )


def _suggest(name: str, axis: int, *, picture: bool) -> int:
    if axis == 0:
        return 1
    if picture and axis > 1:
        return PICTURE
    return next(size for word, size in SUGGESTED if word in name.lower())
