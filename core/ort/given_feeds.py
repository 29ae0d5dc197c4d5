"""Inputs of a measurement, whose sizes the model or the user fixes, and usual ones for a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from ..errors import InputError, OptionError
from ..model import Model, TensorSpec
from ..units import sizes_text
from .feed_trial import check_shapes
from .feeding import Feeding, FeedSource, feeding
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


def usual_feeding(model: Model, shapes: Sizes | None = None, *, seed: int = 0) -> Feeding:
    """Return inputs of one row: of the given shapes, usual sizes elsewhere, else sizes found.

    Raises:
        OptionError: a given shape does not fit, or an input is unknown.
        InputError: onnxruntime runs the model at none of the sizes that were tried.
    """
    shapes = dict(shapes or {})
    free = [s for s in model.inputs if s.name not in shapes and not _is_fixed(s)]
    usual = shapes | {spec.name: _suggested(spec) for spec in free if spec.shape is not None}
    try:
        found = feeding(model, FeedSource(shapes=usual), seed=seed)
        why = "usual sizes"
    except InputError:
        found = feeding(model, FeedSource(shapes=shapes), seed=seed)
        why = found.why
    return replace(found, why=f"{why}; --shape gives those you deploy") if free else found


def _is_fixed(spec: TensorSpec) -> bool:
    return spec.shape is not None and all(isinstance(d, int) for d in spec.shape)


def _example(model: Model, known: Sizes, missing: Sequence[TensorSpec]) -> str:
    """Return options that give the missing sizes: usual ones, else ones that the model takes."""
    try:
        feeds = usual_feeding(model, known).feeds
        shapes = {spec.name: feeds[spec.name].shape for spec in missing}
    except InputError:
        shapes = {spec.name: _suggested(spec) for spec in missing}
    return " ".join(f"--shape {name}={sizes_text(shape)}" for name, shape in shapes.items())


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
