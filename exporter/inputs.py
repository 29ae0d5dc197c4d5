"""Example inputs of a module, and random inputs like them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, InputError, OptionError, nearest
from trimtab.core.text import shape_text

from .flat_module import ForwardCall, flatten_call
from .specs import Dynamic, InputSpec, parse_input_spec


def example_call(
    module: nn.Module,
    inputs: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    data: Any = None,
) -> tuple[ForwardCall, tuple[str, ...] | None]:
    """Flatten the module's example arguments, on the module's device.

    Args:
        module: module to call.
        inputs: a tensor; a tuple or list of positional arguments; a mapping of keyword arguments;
            specs, or texts as `--input` takes them; None for the result of
            `module.example_inputs()` (a tensor, a tuple or a mapping).
        kwargs: further keyword arguments.
        seed: random seed of the values of specs.
        data: a `Dataset` or arrays by input name; the first row is the example where there is
            none.

    Returns:
        The call, and the names of specs where they differ from the parameters of `forward`.

    Raises:
        InputError: there are no example inputs, or `forward` does not take them.
    """
    names = None
    if inputs is None and kwargs is None:
        if data is None or callable(getattr(module, "example_inputs", None)):
            inputs = _own_examples(module)
        else:
            inputs, names = _from_data(module, data)
    specs = _as_specs(inputs)
    if specs:
        inputs, names = _from_specs(module, specs, seed)
    if isinstance(inputs, Mapping):
        args, named = (), {**inputs, **(kwargs or {})}
    else:
        single = inputs is not None and not isinstance(inputs, tuple | list)
        args = (inputs,) if single else tuple(inputs or ())
        named = dict(kwargs or {})
    call = flatten_call(module, args, named)
    return call.to(device_of(module)), names


def device_of(module: nn.Module) -> torch.device:
    """Return the device of its first parameter or buffer."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


def _own_examples(module: nn.Module) -> Any:
    make: Any = getattr(module, "example_inputs", None)
    if not callable(make):
        raise InputError(
            "no example inputs were given, and it has no method example_inputs",
            where=type(module).__name__,
            hint="Give --input NAME=1x3x32x32:float32 for each input, or add the method",
        )
    return make()


def _as_specs(inputs: Any) -> list[InputSpec]:
    """Return the inputs as specs where they are specs or texts, else nothing."""
    items = [inputs] if isinstance(inputs, str | InputSpec) else inputs
    if not isinstance(items, tuple | list):
        return []
    if not all(isinstance(item, str | InputSpec) for item in items):
        return []
    return [parse_input_spec(item) if isinstance(item, str) else item for item in items]


def _from_specs(
    module: nn.Module, specs: Sequence[InputSpec], seed: int
) -> tuple[Any, tuple[str, ...] | None]:
    """Make random tensors: by name where `forward` has these parameters, else by position."""
    generator = torch.Generator().manual_seed(seed)
    parameters = inspect.signature(module.forward).parameters
    tensors = {spec.name: _random(spec, generator) for spec in specs}
    if len(tensors) < len(specs):
        raise OptionError("an input is given twice", where="--input", hint="Once for each input")
    strange = [spec.name for spec in specs if spec.name not in parameters]
    if not strange:
        return tensors, None
    if len(strange) < len(specs):
        raise InputError(
            f"{type(module).__name__}.forward has no parameter {strange[0]!r}",
            where="--input",
            hint=nearest(strange[0], parameters),
        )
    return tuple(tensors.values()), tuple(tensors)


def _from_data(module: nn.Module, data: Any) -> tuple[Any, tuple[str, ...] | None]:
    """Take the first row of the data: by name where `forward` has these parameters."""
    feeds = first_feeds(data)
    rows = {name: torch.as_tensor(array)[:1] for name, array in feeds.items()}
    if set(rows) <= set(inspect.signature(module.forward).parameters):
        return rows, None
    named = not (isinstance(data, Dataset) and data.source.anonymous in rows)
    return tuple(rows.values()), tuple(rows) if named else None


def first_feeds(data: Any) -> Mapping[str, Any]:
    """Return a copy of the first batch of a `Dataset`, or arrays by name as they are."""
    feeds: Mapping[str, Any] = data
    if isinstance(data, Dataset):
        feeds = {name: array.copy() for name, array in next(iter(data)).feeds.items()}
    return feeds


def _random(spec: InputSpec, generator: torch.Generator) -> Tensor:
    dtype = getattr(torch, spec.dtype)
    if dtype == torch.bool or "mask" in spec.name.lower():
        return torch.ones(spec.shape, dtype=dtype)
    if dtype.is_floating_point:
        return torch.randn(spec.shape, generator=generator).to(dtype)
    # Every embedding table has the ids 0 and 1.
    return torch.randint(0, 2, spec.shape, generator=generator).to(dtype)


def named_sizes(call: ForwardCall, dynamic: Dynamic) -> dict[str, int]:
    """Return the size of each named axis in the example.

    Raises:
        OptionError: an input or axis does not exist, or a name has two sizes.
    """
    sizes: dict[str, int] = {}
    for name, axes in dynamic.items():
        if name not in call.names:
            raise OptionError(
                f"there is no input {name!r}", where="dynamic", hint=nearest(name, call.names)
            )
        shape = call.tensors[call.names.index(name)].shape
        for axis, label in axes.items():
            if not -len(shape) <= axis < len(shape):
                raise OptionError(
                    f"input {name!r} has no axis {axis}",
                    where="dynamic",
                    hint=f"Its example has the shape {shape_text(shape)}",
                )
            if sizes.setdefault(label, shape[axis]) != shape[axis]:
                raise OptionError(
                    f"axis {label!r} is {sizes[label]} and {shape[axis]} in the example inputs",
                    where=f"dynamic, input {name!r}",
                    hint="One name is one size; name them apart, or give other examples",
                )
    return sizes


def batch_axes(call: ForwardCall) -> Dynamic:
    """Name the first axis of each input `batch` where it is as long as the first input's."""
    first = next((t for t in call.tensors if t.ndim), None)
    if first is None:
        return {}
    return {
        name: {0: "batch"}
        for name, tensor in zip(call.names, call.tensors, strict=True)
        if tensor.ndim and tensor.shape[0] == first.shape[0]
    }


def resize_example(
    call: ForwardCall, dynamic: Dynamic, sizes: Mapping[str, int]
) -> tuple[Tensor, ...]:
    """Cut or repeat the named axes of the example to these sizes."""
    result = []
    for name, tensor in zip(call.names, call.tensors, strict=True):
        sized = tensor
        for axis, label in dynamic.get(name, {}).items():
            places = torch.arange(sizes[label], device=tensor.device) % tensor.shape[axis]
            sized = sized.index_select(axis % tensor.ndim, places)
        result.append(sized)
    return tuple(result)


def random_inputs(
    call: ForwardCall, dynamic: Dynamic, sizes: Mapping[str, int], seed: int
) -> tuple[Tensor, ...]:
    """Return rows of the user's data where there are some, else values like the example's.

    They have the distribution of the example's values: so ids stay within the table, arguments of
    a square root positive, and magnitudes where the module was made for. Masks are those of the
    example: random ones could hide whole rows.
    """
    rng = np.random.default_rng(seed)
    tensors = resize_example(call.with_data(seed), dynamic, sizes)
    return tuple(
        t if name in call.data else _random_like(t, name, rng)
        for name, t in zip(call.names, tensors, strict=True)
    )


def _random_like(tensor: Tensor, name: str, rng: np.random.Generator) -> Tensor:
    kind = tensor.dtype
    if kind == torch.bool or kind.is_complex or "mask" in name.lower() or not tensor.numel():
        return tensor
    low, high = tensor.min().item(), tensor.max().item()
    if not kind.is_floating_point:
        made = torch.from_numpy(rng.integers(int(low), int(high), tensor.shape, endpoint=True))
    elif low == high:  # zeros or ones do not show the range
        made = torch.from_numpy(rng.standard_normal(tensor.shape))
    elif not math.isfinite(low) or not math.isfinite(high):
        return tensor
    else:
        made = torch.from_numpy(_resampled(tensor, rng))
    return made.to(device=tensor.device, dtype=kind)


def _resampled(tensor: Tensor, rng: np.random.Generator) -> Any:
    """Draw values between neighbouring ones of the tensor, in the tensor's shape."""
    ranked = np.sort(tensor.detach().cpu().double().numpy(), axis=None)
    places = rng.uniform(0, ranked.size - 1, tensor.shape)
    return np.interp(places, np.arange(ranked.size), ranked)


def data_rows(data: Any, call: ForwardCall) -> dict[str, Tensor]:
    """Return the first rows of the user's data by input, as tensors.

    Args:
        data: a `Dataset`, or arrays by input name.
        call: example that the rows must fit.

    Raises:
        DataError: names, types or ranks differ from the example's.
    """
    feeds = first_feeds(data)
    unnamed = data.source.anonymous if isinstance(data, Dataset) else None
    if unnamed and unnamed in feeds and len(call.names) == 1:
        feeds = {call.names[0]: feeds[unnamed]}
    rows = {}
    for name, array in feeds.items():
        if name not in call.names:
            raise DataError(
                f"there is no input {name!r}", where="data", hint=nearest(name, call.names)
            )
        tensor, example = torch.as_tensor(array), call.tensors[call.names.index(name)]
        if tensor.ndim != example.ndim or tensor.dtype != example.dtype or not tensor.numel():
            raise DataError(
                f"{name} is {shape_text(tensor.shape)} {tensor.dtype}, the example "
                f"{shape_text(example.shape)} {example.dtype}",
                where="data",
                hint="Give rows of the type and rank of the example",
            )
        rows[name] = tensor.to(example.device)
    return rows
