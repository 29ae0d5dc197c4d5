"""Modules by name, `package.module:callable`, and weights from files that cannot run code."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.core.callables import import_callable
from trimtab.core.errors import InputError, TrimtabError
from trimtab.core.text import shape_text

from .specs import weights_file

#: Keys under which checkpoints keep the state dict.
NESTED = ("state_dict", "model_state_dict", "model")
#: Batch counter that older checkpoints lack; torch adds it, and inference does not read it.
COUNTER = "num_batches_tracked"


def load_module(spec: str, weights: str | Path | None = None) -> nn.Module:
    """Load the module that `package.module:callable` is or returns.

    Args:
        spec: a factory, a subclass of `nn.Module` without required arguments, or a module.
        weights: file of a state dict to load into it; see `load_weights`.

    Raises:
        InputError: there is no such callable, it fails or returns no module, or the weights do
            not fit.
    """
    made: Any = import_callable(spec)
    if not isinstance(made, nn.Module):
        try:
            made = made()
        except TrimtabError:
            raise
        except Exception as error:
            raise InputError(
                f"failed ({type(error).__name__}: {error})",
                where=spec,
                hint="It is called without arguments and must return a torch.nn.Module",
            ) from error
    if not isinstance(made, nn.Module):
        raise InputError(
            f"returned a {type(made).__name__}, not a torch.nn.Module",
            where=spec,
            hint="Name a callable that returns the module",
        )
    if weights is not None:
        load_weights(made, weights)
    return made


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Load a state dict into `module`: all of it or, if anything does not fit, nothing.

    The file is `.safetensors`, or `.pt`, `.pth` or `.bin` with plain tensors only.

    Raises:
        InputError: the file does not exist, is of an unknown type or a pickle with code, or its
            names and shapes differ from the module's.
    """
    path = weights_file(path)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    own = module.state_dict()
    state = _without_prefix(state, own)
    _check_fit(state, own, path)
    module.load_state_dict(state)


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        reason = f"is not a safetensors file, or is truncated ({error})"
        raise InputError(reason, where=str(path)) from error


def _read_pickle(path: Path) -> Mapping[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "has more than plain tensors: loading could run code from the file, so it is refused",
            where=str(path),
            hint="Save the weights alone, torch.save(module.state_dict(), path), or as "
            ".safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise InputError(
            "is not a PyTorch file, or is truncated",
            where=str(path),
            hint="Save it again with torch.save(module.state_dict(), path)",
        ) from error
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(
            "has no state dict (tensors by name)",
            where=str(path),
            hint="Save it with torch.save(module.state_dict(), path)",
        )
    return found


def _without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix `module.` of DataParallel and DistributedDataParallel."""
    prefixed = all(name.startswith("module.") for name in state)
    if prefixed and not any(name.startswith("module.") for name in own):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def _check_fit(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    differ = [n for n in own if n in state and state[n].shape != own[n].shape]
    shapes = [
        f"{n} {shape_text(state[n].shape)} instead of {shape_text(own[n].shape)}" for n in differ
    ]
    problems = []
    for kind, names in (
        ("missing", [n for n in own if n not in state and not n.endswith(COUNTER)]),
        ("unexpected", [n for n in state if n not in own]),
        ("of another shape", shapes),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            problems.append(f"{kind}: {', '.join(names[:5])}{more}")
    if problems:
        raise InputError(
            f"does not fit the module; {'; '.join(problems)}",
            where=str(path),
            hint="Check that weights and module belong together",
        )
