"""Call of torch's exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.core.errors import ExportError, MissingExtraError

from .axes import LEAST
from .export_errors import export_error
from .flat_module import FlatModule
from .specs import Dynamic, Ranges
from .trainable import dropout_in_training, tidy_trainable


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silence what torch prints, logs and warns about while it exports."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def capture(
    flat: FlatModule,
    tensors: tuple[Tensor, ...],
    dynamic: Dynamic,
    ranges: Ranges,
    opset: int,
    *,
    trainable: bool = False,
) -> Any:
    """Export a module as a `torch.onnx.ONNXProgram`.

    Args:
        flat: the module in eval mode.
        tensors: example inputs; named axes must be at least 2, since torch fixes sizes 0 and 1.
        dynamic: axis names by input.
        ranges: sizes that named axes may have.
        opset: version of the default operator set.
        trainable: true to keep BatchNormalization and Dropout as nodes.

    Raises:
        ExportError: torch cannot export it; names the module and the source line.
    """
    labels = {label for axes in dynamic.values() for label in axes.values()}
    dims = {label: _dim(label, ranges) for label in labels}
    shapes = tuple(
        {axis % tensor.ndim: dims[label] for axis, label in dynamic.get(name, {}).items()}
        for name, tensor in zip(flat.call.names, tensors, strict=True)
    )
    _forget_recurrent(flat)
    try:
        with silenced(), dropout_in_training(flat) if trainable else contextlib.nullcontext():
            program = torch.onnx.export(
                flat,
                tensors,
                dynamo=True,
                verbose=False,
                opset_version=opset,
                dynamic_shapes=(shapes,),
                optimize=not trainable,
            )
            if trainable:
                tidy_trainable(program)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"export needs {error.name}", extra="torch") from error
    except Exception as error:
        raise export_error(error, flat.module) from error
    _check_dynamic(program, flat.call.names, dynamic)
    return program


def _dim(label: str, ranges: Ranges) -> Any:
    low, high = ranges.get(label, (1, None))
    return torch.export.Dim(label, **({"min": low} if low > LEAST else {}), max=high)


def _forget_recurrent(module: nn.Module) -> None:
    """Clear torch's caches of how LSTM and GRU are decomposed.

    With a dynamic time axis torch must write them as loops; instead it reuses the decomposition
    that an earlier export in this process left in its caches (seen in torch 2.13).
    """
    if not any(isinstance(m, nn.LSTM | nn.GRU) for m in module.modules()):
        return
    torch.compiler.reset()
    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        cache = getattr(operator, "_dispatch_cache", None)
        if cache is not None:
            cache.clear()


def _check_dynamic(program: Any, names: tuple[str, ...], dynamic: Dynamic) -> None:
    """Refuse an axis that torch fixed silently, since the module works for one size only."""
    for name, value in zip(names, program.model.graph.inputs, strict=True):
        for axis, label in dynamic.get(name, {}).items():
            size = value.shape[axis]
            if str(getattr(size, "value", size)) != label:
                raise ExportError(
                    f"axis {axis} of input {name!r} cannot be dynamic: the module fixes it, "
                    f"torch found {size}",
                    where=f"dynamic axis {label!r}",
                    hint="Leave it out of --dynamic, or remove the code that depends on its size",
                )
