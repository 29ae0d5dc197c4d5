"""Modules with a flat signature: tensors in by position, tensors out by position.

torch's exporter names nested inputs and outputs after its own tracing; here they are named after
the parameters of `forward` and the keys of its result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.core.errors import ExportError, InputError

from .containers import hidden_tensors, items_of, rebuilt
from .torch_functions import ExportableFunctions


@dataclass(frozen=True)
class TensorSlot:
    """Placeholder of a tensor in nested arguments."""

    index: int


@dataclass(frozen=True)
class ForwardCall:
    """Arguments of a module, with placeholders for their tensors.

    Attributes:
        args: positional arguments, with a `TensorSlot` for each tensor.
        kwargs: keyword arguments likewise.
        names: names of the tensors: `ids`, or `pair_0` for the first item of parameter `pair`.
        tensors: tensors in the order of the parameters.
        data: rows of the user's data by name, on which the proof runs as well.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    data: Mapping[str, Tensor] = field(default_factory=dict)

    def with_data(self, turn: int) -> ForwardCall:
        """Return the same call with the user's data, from another row at each turn."""
        tensors = (
            torch.roll(self.data[name], -turn, 0) if name in self.data else tensor
            for name, tensor in zip(self.names, self.tensors, strict=True)
        )
        return dataclasses.replace(self, tensors=tuple(tensors))

    def to(self, device: torch.device) -> ForwardCall:
        """Return the same call with copies of its tensors on a device, in the default layout."""
        moved = (t.detach().to(device, copy=True).contiguous() for t in self.tensors)
        return dataclasses.replace(self, tensors=tuple(moved))


class FlatModule(nn.Module):
    """Module whose `forward(*tensors)` calls another with nested arguments.

    Args:
        module: module to call, which is not changed; its weights are named `module.*`.
        call: its arguments.
    """

    def __init__(self, module: nn.Module, call: ForwardCall) -> None:
        super().__init__()
        self.module = module
        self.call = call
        self.training = False  # only this flag: those of the module are set elsewhere

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the module's result, in order."""
        exporting = torch.compiler.is_exporting()
        with ExportableFunctions() if exporting else contextlib.nullcontext():
            return tuple(tensor for _, tensor in tensor_leaves(self._call(tensors)))

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the module's result by name, in order."""
        pairs = list(tensor_leaves(self._call(tensors)))
        # Names must differ from the inputs' too, for instance where a module returns its ids.
        names = unique_names([name or "output" for name, _ in pairs], taken=self.call.names)
        return dict(zip(names, (tensor for _, tensor in pairs), strict=True))

    def _call(self, tensors: Sequence[Tensor]) -> Any:
        return self.module(*_fill(self.call.args, tensors), **_fill(self.call.kwargs, tensors))


def flatten_call(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ForwardCall:
    """Separate the tensors of a call of `module.forward` from its structure.

    NumPy arrays become tensors; other values, except containers, become part of the graph.

    Raises:
        InputError: `forward` does not take these arguments, or they contain no tensor.
    """
    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(
            f"does not take these example inputs ({error})",
            where=f"{type(module).__name__}.forward",
            hint=f"Its signature is {inspect.signature(module.forward)}",
        ) from error
    found: list[tuple[str, Tensor]] = []
    for name, value in bound.arguments.items():
        # Arguments that **kwargs collects have names of their own.
        kind = bound.signature.parameters[name].kind
        path = "" if kind is inspect.Parameter.VAR_KEYWORD else name
        bound.arguments[name] = _extract_tensors(value, path, found)
    if not found:
        raise InputError("the example inputs contain no tensor", where=type(module).__name__)
    names = unique_names([name for name, _ in found])
    return ForwardCall(bound.args, bound.kwargs, names, tuple(tensor for _, tensor in found))


def tensor_leaves(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a nested result with their names: keys and positions joined by `_`.

    Raises:
        ExportError: a value in it is not a tensor, a container or None.
    """
    if isinstance(value, Tensor):
        yield path, value
    elif (items := items_of(value)) is not None:
        for key, item in items:
            named = path or ("" if isinstance(key, str) else "output")
            yield from tensor_leaves(item, f"{named}_{key}" if named else str(key))
    elif value is not None:
        raise ExportError(
            f"it returns a {type(value).__name__}, but a graph can return only tensors",
            where=f"output {path!r}" if path else None,
            hint="Return tensors, or tuples, dicts and dataclasses of them",
        )


def _extract_tensors(value: Any, path: str, found: list[tuple[str, Tensor]]) -> Any:
    """Replace each tensor of `value` by a `TensorSlot` and append it to `found`."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        found.append((path, value))
        return TensorSlot(len(found) - 1)
    items = items_of(value)
    if items is None:
        if hidden_tensors(value):
            raise InputError(
                f"a {type(value).__name__} holds tensors that the graph would keep as constants",
                where=f"input {path!r}" if path else None,
                hint="Pass the tensors, or register its class with "
                "torch.utils._pytree.register_pytree_node",
            )
        return value
    planted = [
        _extract_tensors(item, f"{path}_{key}" if path else str(key), found) for key, item in items
    ]
    return rebuilt(value, planted)


def _fill(value: Any, tensors: Sequence[Tensor]) -> Any:
    """Replace each `TensorSlot` of `value` by its tensor."""
    if isinstance(value, TensorSlot):
        return tensors[value.index]
    items = items_of(value)
    return value if items is None else rebuilt(value, [_fill(item, tensors) for _, item in items])


def unique_names(names: Sequence[str], taken: Sequence[str] = ()) -> tuple[str, ...]:
    """Make names unique by appending numbers."""
    result: list[str] = []
    for name in names:
        result.append(free_name(name, {*taken, *result}))
    return tuple(result)


def free_name(name: str, taken: Collection[str | None]) -> str:
    """Append a number to a name until it is not taken."""
    free, number = name, 1
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free
