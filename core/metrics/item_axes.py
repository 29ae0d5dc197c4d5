"""Axes of the items in outputs: most often the first, of recurrent networks also the second."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..data import Array
from ..model import Model


def item_axes(model: Model) -> dict[str, int]:
    """Return the axis of the items of each output that has another size on its first.

    It is the one with the name that the free first axis of an input has. A first axis of size one
    may be that of the items, whatever the others are called.
    """
    free = {spec.shape[0] for spec in model.inputs if spec.shape and _is_named(spec.shape[0])}
    axes = {}
    for spec in model.outputs:
        shape = spec.shape or ()
        named = [axis for axis, size in enumerate(shape) if size in free]
        if len(named) == 1 and named[0] > 0 and shape[0] != 1:
            axes[spec.name] = named[0]
    return axes


def items_first(outputs: Mapping[str, Array], axes: Mapping[str, int]) -> Mapping[str, Array]:
    """Return outputs with the items of each on its first axis."""
    if not axes:
        return outputs
    return {
        name: np.moveaxis(array, axes[name], 0)
        if array.ndim > axes.get(name, array.ndim)
        else array
        for name, array in outputs.items()
    }


def _is_named(size: int | str | None) -> bool:
    return isinstance(size, str) and bool(size)
