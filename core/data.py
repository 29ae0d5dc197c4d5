"""Elements of a dataset: arrays, batches, and sources of items by position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .model import TensorSpec

Array = NDArray[Any]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
#: Positions of items, ascending.
Rows = NDArray[np.int64]


def tensors(outputs: Mapping[str, Any]) -> dict[str, Array]:
    """Return the outputs of a model that are tensors; a sequence of them is judged by none."""
    return {name: array for name, array in outputs.items() if not isinstance(array, list)}


@dataclass(frozen=True)
class Batch:
    """Feeds of one run of a model, with labels if there are any.

    Attributes:
        feeds: arrays by input name; the first axis is the batch.
        labels: (N, ...) or None.
        alone: true where no axis is the batch: all of it is one row, as nodes and edges of a graph.
    """

    feeds: Mapping[str, Array]
    labels: Array | None = None
    alone: bool = False

    @property
    def size(self) -> int:
        """Number of rows; a scalar beside arrays holds for all of them."""
        if self.alone:
            return 1
        for array in self.feeds.values():
            if array.ndim:
                return int(array.shape[0])
        return 1 if self.feeds else 0


class Source(ABC):
    """Source of a dataset's items, by position."""

    #: True where an item is a whole batch of the user's, which is not regrouped.
    batched = False
    #: Array without a meaningful name, which takes the name of the model's input.
    anonymous: str | None = None
    #: Numbers by the name of an input, for models that take them.
    scalars: Mapping[str, int] = {}
    #: Words on what to do about a shape that the model does not take; {size} is its sides.
    advice = ""
    #: Names of scalars that hold for all items.
    constants: Collection[str] = ()

    @property
    def left_out(self) -> Sequence[Path]:
        """Files that cannot be read, which are few."""
        return ()

    @property
    def starts(self) -> tuple[int, ...]:
        """Positions of the items at which a sequence begins, for models with states."""
        return (0,)

    def of_inputs(self, specs: Sequence[TensorSpec]) -> Source:  # noqa: ARG002 - as most do
        """Return the items as these inputs of a model take them."""
        return self

    def name_of(self, row: int) -> str:
        """Return what people call the item at a position."""
        return f"item {row}"

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of items."""

    @abstractmethod
    def read(self, rows: Rows, batch: int) -> Iterator[Batch]:
        """Yield the items at `rows`, at most `batch` of them at a time."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
