"""What a user hands to `optimize` as models and data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model

from ..open_model import export_on, open_model
from .splits import Parts

LABELS = "labels"


def open_data(given: Any) -> Any:
    """A dataset, or all parts, of what a user gives; None stays None.

    Raises:
        DataError: it cannot be used.
        OptionError: it is nothing of the kind.
    """
    if given is None or isinstance(given, Dataset | Parts):
        return given
    if isinstance(given, str | Path):
        return Dataset.open(given)
    if isinstance(given, Mapping):
        arrays = {name: np.asarray(array) for name, array in given.items()}
        labels = arrays.pop(LABELS, None)
        return Dataset.of_arrays(arrays, labels)
    raise OptionError(
        f"data of type {type(given).__name__} cannot be used",
        hint="Give a Dataset, a path, or arrays by input name",
    )


def open_given(given: Any, data: Dataset | Parts) -> Model:
    """A model of what a user gives; a module is exported on the first rows of the data.

    Raises:
        ModelError, ExportError: it cannot be used.
        OptionError: it is nothing of the kind.
    """
    if isinstance(given, Model):
        return given
    if isinstance(given, str | Path):
        return open_model(given, example=lambda: first_feeds(data))
    if hasattr(given, "state_dict") and callable(given):
        from trimtab.exporter import export

        name = type(given).__name__
        if callable(getattr(given, "example_inputs", None)):
            return export(given, name=name)
        return export_on(given, first_feeds(data), name=name)
    raise OptionError(
        f"a model of type {type(given).__name__} cannot be used",
        hint="Give a Model, an .onnx file, module:callable, or a torch.nn.Module",
    )


def first_feeds(data: Dataset | Parts) -> Mapping[str, Any]:
    """The first rows of the data, by input name."""
    dataset = data.calibration if isinstance(data, Parts) else data
    return next(iter(dataset.take(2).sized(2))).feeds
