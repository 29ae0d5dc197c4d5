"""The call of torch's exporter, and what its failures mean."""

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

from .explain import explain
from .flat import Flat
from .specs import Dynamic
from .trainable import dropping, settle


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode, without gradients; each submodule's own flag comes back after."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        # A forward that draws random numbers must not disturb the caller's.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for submodule, training in before:
            submodule.training = training


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What torch prints, logs and warns about while it exports, kept from the user's terminal."""
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
    flat: Flat,
    tensors: tuple[Tensor, ...],
    dynamic: Dynamic,
    opset: int,
    *,
    trainable: bool = False,
) -> Any:
    """The `torch.onnx.ONNXProgram` of a module.

    Args:
        flat: the module in eval mode.
        tensors: example inputs; named axes must be at least 2, since torch takes 0 and 1 as fixed.
        dynamic: axis names by input.
        opset: version of the default operator set.
        trainable: whether BatchNormalization and Dropout stay nodes.

    Raises:
        ExportError: torch cannot export it; names the module and the source line.
    """
    dims = {label: torch.export.Dim(label) for axes in dynamic.values() for label in axes.values()}
    shapes = tuple(
        {axis % tensor.ndim: dims[label] for axis, label in dynamic.get(name, {}).items()}
        for name, tensor in zip(flat.call.names, tensors, strict=True)
    )
    _forget_recurrent(flat)
    try:
        with quiet(), dropping(flat) if trainable else contextlib.nullcontext():
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
                settle(program)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"export needs {error.name}", extra="torch") from error
    except Exception as error:
        raise explain(error, flat.module) from error
    _check_dynamic(program, flat.call.names, dynamic)
    return program


def _forget_recurrent(module: nn.Module) -> None:
    """Let torch decompose LSTM and GRU anew.

    With a dynamic time axis it must write them as loops; instead it takes up whatever form an
    earlier export in this process left in its caches (seen in torch 2.13).
    """
    if not any(isinstance(m, nn.LSTM | nn.GRU) for m in module.modules()):
        return
    torch.compiler.reset()
    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        cache = getattr(operator, "_dispatch_cache", None)
        if cache is not None:
            cache.clear()


def _check_dynamic(program: Any, names: tuple[str, ...], dynamic: Dynamic) -> None:
    """Torch fixes an axis without a word where the module works for one size only."""
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
