"""Checkpoints: the state of a training run in a file, and training resumed from it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, Protocol

import torch

from trimtab.core.errors import ModelError

from .losses import Loss
from .module import TorchGraph
from .optimizer import Optimizer
from .state import TrainingState, WeightAverage, Weights, restore, snapshot


class Checkpointed(Protocol):
    """Parts of a training run whose values a checkpoint holds."""

    module: TorchGraph
    average: WeightAverage | None
    loss: Loss
    optimizer: Optimizer
    best: Weights
    state: TrainingState


def identity(fields: Mapping[str, Any], *parts: str) -> str:
    """Return the digest of what a checkpoint belongs to: options, digests, the seed and so on."""
    text = "|".join([json.dumps(fields, sort_keys=True), *parts])
    return hashlib.sha256(text.encode()).hexdigest()


def save(run: Checkpointed, path: Path, digest: str) -> str:
    """Write the checkpoint of a run; return the problem where that fails, else nothing."""
    content = {
        "digest": digest,
        "weights": snapshot(run.module),
        "average": run.average.weights if run.average else None,
        "count": run.average.count if run.average else 0,
        "loss": run.loss.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "best": run.best,
        "numbers": list(astuple(run.state))[:-1],
        "stopped": run.state.stopped,
        "random": torch.get_rng_state(),
    }
    return write(path, content)


def resume(run: Checkpointed, path: Path, digest: str, device: torch.device) -> bool:
    """Restore a run from its checkpoint; return whether there was one.

    Raises:
        ModelError: it is of another run.
    """
    found = read(path, digest, device)
    if found is None:
        return False
    restore(run.module, found["weights"])
    if run.average and found["average"]:
        run.average.weights, run.average.count = found["average"], found["count"]
    run.loss.load_state_dict(found["loss"])
    run.optimizer.load_state_dict(found["optimizer"])
    run.best = found["best"]
    run.state = TrainingState(*found["numbers"])
    # A run that ended by itself stays ended; an interrupted one trains on.
    run.state.stopped = "done" if found["stopped"] == "interrupted" else found["stopped"]
    torch.set_rng_state(found["random"].cpu())
    return True


def write(path: Path, content: dict[str, Any]) -> str:
    """Write a checkpoint, whole or not at all; return the problem, or nothing.

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
        # torch reports a full disk by a place in its own source.
        reason = "the disk is full" if isinstance(error, RuntimeError) else error
        return f"checkpoint not written ({reason}); the previous one stays"
    return ""


def read(path: Path, digest: str, device: torch.device | None = None) -> dict[str, Any] | None:
    """Read a checkpoint of this run, None where there is none.

    Raises:
        ModelError: it is of another run, or not a checkpoint.
    """
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, device, weights_only=True)
        of = content["digest"]
    except Exception as error:
        expected = (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError)
        # Unpickling has errors of its own.
        if not isinstance(error, expected) and "pickle" not in type(error).__module__.lower():
            raise
        raise ModelError("is not a checkpoint of finetune", where=str(path)) from error
    if of != digest:
        raise ModelError(
            "is a checkpoint of another model, or of another teacher, data or configuration",
            where=str(path),
            hint="Name another file, or leave --resume out to begin anew",
        )
    return content
