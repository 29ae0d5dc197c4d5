"""Inputs that a model is tuned on: the user's data, or random ones of the given sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.errors import DataError, OptionError, nearest
from trimtab.core.model import Model, TensorSpec
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import Feeds

Sizes = dict[str, tuple[int, ...]]


def read_shapes(texts: Sequence[str]) -> list[Sizes]:
    """Parse sizes by input name, one mapping per case; a repeated name starts another case.

    Raises:
        OptionError: a text is not a valid shape.
    """
    cases: list[Sizes] = []
    for text in texts:
        name, equals, sizes = text.partition("=")
        try:
            dims = tuple(int(d) for d in sizes.lower().split("x"))
        except ValueError:
            dims = ()
        if not name or not equals or not dims or min(dims) < 1:
            raise OptionError(
                f"{text!r} is not a valid shape",
                where="shapes",
                hint="Write it as NAME=1x3x224x224",
            )
        case = next((c for c in cases if name not in c), None)
        if case is None:
            cases.append(case := {})
        case[name] = dims
    return cases


def cases_of(model: Model, texts: Sequence[str], ctx: Context, seed: int) -> list[Feeds]:
    """Return the feeds to measure with: of the given sizes, else rows of the data, else random.

    Raises:
        OptionError: a dynamic axis has no size, a shape does not fit, an unknown input.
        DataError: the data do not fit the model.
    """
    if texts:
        return [_random(model, sizes, seed) for sizes in read_shapes(texts)]
    if ctx.data is not None:
        return [first_rows(model, ctx)]
    return [_random(model, {}, seed)]


def sizes_text(cases: Sequence[Feeds]) -> str:
    """Return the sizes of all inputs as text, for messages and as a key."""
    return "; ".join(
        " ".join(f"{name}={'x'.join(map(str, array.shape))}" for name, array in case.items())
        for case in cases
    )


def first_rows(model: Model, ctx: Context) -> Feeds:
    """Return the first rows of the context's data, as many as the model's batch holds.

    Raises:
        DataError: there are none, or they do not fit.
    """
    assert ctx.data is not None
    leading = [spec.shape[0] for spec in model.inputs if spec.shape]
    rows = max([d for d in leading if isinstance(d, int)], default=1)
    for batch in ctx.data.bind(model).take(rows).sized(rows):
        return batch.feeds
    raise DataError("has no rows", where=ctx.data.spec, hint="Give at least one")


def _random(model: Model, sizes: Sizes, seed: int) -> Feeds:
    specs = {spec.name: spec for spec in model.inputs}
    for name in sizes:
        if name not in specs:
            hint = nearest(name, list(specs))
            raise OptionError(f"the model has no input {name!r}", where="shapes", hint=hint)
    symbols = _symbols(model, sizes)
    fixed = model.clone()
    for value in fixed.graph.inputs:
        if value.name in specs:
            value.shape = ir.Shape(_resolve(specs[value.name], sizes.get(value.name), symbols))
    return random_feeds(fixed, seed=seed)


def _symbols(model: Model, sizes: Sizes) -> dict[str, int]:
    """Return the sizes of named dimensions that the given shapes fix."""
    found: dict[str, int] = {}
    for spec in model.inputs:
        given = sizes.get(spec.name)
        if given is None or spec.shape is None:
            continue
        fits = [not isinstance(d, int) or d == s for d, s in zip(spec.shape, given, strict=False)]
        if len(given) != len(spec.shape) or not all(fits):
            text = "x".join(map(str, given))
            raise OptionError(f"{spec.name}={text} does not fit the input {spec}", where="shapes")
        found |= {str(d): s for d, s in zip(spec.shape, given, strict=True) if isinstance(d, str)}
    return found


def _resolve(
    spec: TensorSpec, given: tuple[int, ...] | None, symbols: dict[str, int]
) -> Sequence[int]:
    if given is not None:
        return given
    dims: list[Any] = list(spec.shape or ())
    sizes = [d if isinstance(d, int) else symbols.get(str(d), 1 if i == 0 else None)
             for i, d in enumerate(dims)]  # fmt: skip
    known = [d for d in sizes if d is not None]
    if len(known) < len(sizes) or spec.shape is None:
        example = "x".join(str(d or 128) for d in sizes) or "1x128"
        raise OptionError(
            f"input {spec} has a dynamic axis, and what is fastest depends on its size",
            where="shapes",
            hint=f"Give the sizes that matter, for example {spec.name}={example}",
        )
    return known
