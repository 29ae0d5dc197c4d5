"""Models and data as users pass them to `optimize`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model

from ...open_model import export_module, open_model
from ..splits import Splits


def open_data(source: Any) -> Any:
    """Open what a user passes as data: a dataset, or all splits; None stays None.

    Raises:
        DataError: it cannot be used.
        OptionError: its type is not supported.
    """
    return source if source is None or isinstance(source, Splits) else Dataset.of(source)


def open_input_model(source: Any, data: Dataset | Splits) -> Model:
    """Open what a user passes as a model; a module is exported on the first rows of the data.

    Raises:
        ModelError, ExportError: it cannot be used.
        OptionError: its type is not supported.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, str | Path):
        return open_model(source, example=lambda: first_feeds(data))
    if hasattr(source, "state_dict") and callable(source):
        return export_module(source, type(source).__name__, lambda: first_feeds(data))
    raise OptionError(
        f"a model of type {type(source).__name__} cannot be used",
        hint="Give a Model, an .onnx file, module:callable, or a torch.nn.Module",
    )


def first_feeds(data: Dataset | Splits) -> Mapping[str, Any]:
    """Return the first rows of the data, by input name."""
    dataset = data.calibration if isinstance(data, Splits) else data
    return next(iter(dataset.take(2).sized(2))).feeds
