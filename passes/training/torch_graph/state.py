"""What a training run holds: weights that move, the best so far, and files to go on from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.core.errors import ModelError

from .module import TorchGraph

Weights = dict[str, Tensor]


def snapshot(module: TorchGraph) -> Weights:
    """A copy of all weights and statistics."""
    return {name: t.detach().clone() for name, t in module.named_weights().items()}


def restore(module: TorchGraph, weights: Weights) -> None:
    """Put a copy back."""
    with torch.no_grad():
        for name, tensor in module.named_weights().items():
            tensor.copy_(weights[name])


class Average:
    """A running average of the weights: a += (1 - decay) (w - a), corrected for its start."""

    def __init__(self, module: TorchGraph, decay: float) -> None:
        self.module, self.decay = module, decay
        self.weights, self.count = snapshot(module), 0

    def update(self) -> None:
        """Move towards the weights as they are."""
        self.count += 1
        # At first the average is of few steps: as fast as their mean.
        decay = min(self.decay, self.count / (self.count + 10))
        for name, tensor in self.module.named_weights().items():
            self.weights[name].lerp_(tensor.detach(), 1 - decay)


@contextlib.contextmanager
def swapped(module: TorchGraph, weights: Weights | None) -> Any:
    """Other weights for a while."""
    if weights is None:
        yield
        return
    own = snapshot(module)
    restore(module, weights)
    try:
        yield
    finally:
        restore(module, own)


class Kept:
    """What earlier passes bought and training must not lose: zeros, and values that are shared.

    Rounding makes zeros and equal values as well, so quantized kernels count only where a pass of
    the lineage pruned or clustered; and equal floats count only where one clustered.
    """

    def __init__(self, module: TorchGraph, *, zeros: bool, pruned: bool, clustered: bool) -> None:
        self.module = module
        self.masks: Weights = {}
        self.clusters: dict[str, tuple[Tensor, Tensor]] = {}
        for name, tensor in module.named_weights("kernel").items():
            values = tensor.detach()
            rounded = module.weights[name].stored is not None
            if zeros and (pruned or not rounded) and bool((values == 0).any()):
                self.masks[name] = (values != 0).to(values.dtype)
            if clustered:
                _, index, counts = torch.unique(values, return_inverse=True, return_counts=True)
                self.clusters[name] = index, counts

    def restore(self) -> None:
        """Bring shared values and zeros back after a step; a value moves as its members' mean."""
        with torch.no_grad():
            for name, (index, counts) in self.clusters.items():
                tensor = self.module.weight(name)
                sums = torch.zeros(len(counts), dtype=tensor.dtype, device=tensor.device)
                sums.index_add_(0, index.reshape(-1), tensor.reshape(-1))
                tensor.copy_((sums / counts)[index])
            for name, mask in self.masks.items():
                self.module.weight(name).mul_(mask)


def save_checkpoint(path: Path, content: dict[str, Any]) -> str:
    """Write a checkpoint, whole or not at all; what went wrong, or nothing.

    A disk that fills leaves the previous one as it is, and training goes on.
    """
    scratch = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, scratch)
        scratch.replace(path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        # torch tells a full disk by a place in its own source.
        reason = "the disk is full" if isinstance(error, RuntimeError) else error
        return f"checkpoint not written ({reason}); the previous one stays"
    return ""


def load_checkpoint(
    path: Path, digest: str, device: torch.device | None = None
) -> dict[str, Any] | None:
    """A checkpoint of this model, None where there is none.

    Raises:
        ModelError: it is of another model, or is none at all.
    """
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, device, weights_only=True)
        of = content["digest"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ModelError("is no checkpoint of a recovery", where=str(path)) from error
    except Exception as error:  # unpickling has errors of its own
        if "pickle" not in type(error).__module__.lower():
            raise
        raise ModelError("is no checkpoint of a recovery", where=str(path)) from error
    if of != digest:
        raise ModelError(
            "is a checkpoint of another model, or of another teacher, data or configuration",
            where=str(path),
            hint="Name another file, or leave --resume out to begin anew",
        )
    return content
