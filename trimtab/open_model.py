"""SOURCE and MODEL arguments: an `.onnx` file, or a module that is exported on the way."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trimtab.core.callables import is_callable_spec
from trimtab.core.errors import ModelError
from trimtab.core.model import Model


def open_model(
    spec: str | Path,
    *,
    weights: str | Path | None = None,
    trainable: bool = False,
    example: Callable[[], Mapping[str, Any]] | None = None,
) -> Model:
    """Open the model that a SOURCE or MODEL argument names.

    Args:
        spec: an `.onnx` file, or `package.module:callable` that returns a `torch.nn.Module` with a
            method `example_inputs`, unless there is an example.
        weights: a state dict for the module: `.pt` or `.safetensors`.
        trainable: keep a module's BatchNormalization and Dropout as nodes; a file stays as it is.
        example: makes feeds by input name, for a module without `example_inputs`.

    Raises:
        ModelError: the file is not a model.
        ExportError: the module cannot be exported.
    """
    text = str(spec)
    if not Path(text).exists() and is_callable_spec(text):
        from .exporter import load_module

        module = load_module(text, weights)
        return export_module(module, text, example, trainable=trainable)
    if weights is not None:
        raise ModelError(
            "is a file, and weights belong to a module",
            where=text,
            hint="Give --weights with module:callable only",
        )
    model = Model.load(text)
    _opened.add(model)
    return model


#: Models that were opened from files, by which an error that nobody foresaw is judged.
_opened: weakref.WeakSet[Model] = weakref.WeakSet()


def fault_of_opened() -> ModelError | None:
    """Return the own fault of a model that was opened, where one has any."""
    from trimtab.core.ort.own_fault import own_fault

    return next((fault for model in list(_opened) if (fault := own_fault(model))), None)


def export_module(
    module: Any,
    name: str,
    example: Callable[[], Mapping[str, Any]] | None = None,
    *,
    trainable: bool = False,
) -> Model:
    """Export a `torch.nn.Module` on its `example_inputs`, or else on the feeds of an example.

    Feeds are passed by keyword where its `forward` has such parameters; their names become those
    of the model's inputs.

    Raises:
        ExportError: the module cannot be exported.
    """
    from .exporter import export

    if example is None or callable(getattr(module, "example_inputs", None)):
        return export(module, name=name, trainable=trainable)
    import inspect

    import torch

    tensors = {key: torch.from_numpy(array.copy()) for key, array in example().items()}
    if set(tensors) <= set(inspect.signature(module.forward).parameters):
        return export(module, tensors, name=name)
    return export(module, tuple(tensors.values()), input_names=list(tensors), name=name)
