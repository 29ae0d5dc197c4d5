"""Inputs that a model is tuned on: the user's data, or random ones of the given sizes."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.feeding import feeding
from trimtab.core.ort.given_feeds import given_feeds
from trimtab.core.ort.session import Feeds
from trimtab.core.units import shape

Sizes = dict[str, tuple[int, ...]]


def read_shapes(texts: Sequence[str]) -> list[Sizes]:
    """Parse sizes by input name, one mapping per case; a repeated name starts another case.

    Raises:
        OptionError: a text is not a valid shape.
    """
    cases: list[Sizes] = []
    for text in texts:
        name, dims = shape(text, "shapes")
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
        return [given_feeds(model, sizes, batch=1, seed=seed) for sizes in read_shapes(texts)]
    if ctx.data is not None:
        return [first_rows(model, ctx)]
    return [given_feeds(model, batch=1, seed=seed)]


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
    return feeding(model, ctx.source(model)).feeds
