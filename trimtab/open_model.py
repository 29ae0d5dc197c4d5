"""SOURCE and MODEL arguments: an `.onnx` file, or a module that is exported on the way."""

from __future__ import annotations

from pathlib import Path

from trimtab.core.callables import is_callable_spec
from trimtab.core.errors import ModelError
from trimtab.core.model import Model


def open_model(
    spec: str | Path, *, weights: str | Path | None = None, trainable: bool = False
) -> Model:
    """The model that a SOURCE or MODEL argument names.

    Args:
        spec: an `.onnx` file, or `package.module:callable` that returns a `torch.nn.Module` with a
            method `example_inputs`.
        weights: a state dict for the module: `.pt` or `.safetensors`.
        trainable: whether a module's BatchNormalization and Dropout stay nodes; a file is as it is.

    Raises:
        ModelError: the file is no model.
        ExportError: the module cannot be exported.
    """
    text = str(spec)
    if not Path(text).exists() and is_callable_spec(text):
        from trimtab.exporter import export, load_module

        return export(load_module(text, weights), name=text, trainable=trainable)
    if weights is not None:
        raise ModelError(
            "is a file, and weights belong to a module",
            where=text,
            hint="Give --weights with module:callable only",
        )
    return Model.load(text)
