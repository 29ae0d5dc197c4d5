"""What a training run needs around it: where, how seeded, and what it says."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, ModelError, OptionError
from trimtab.core.model import Model

if TYPE_CHECKING:
    from trimtab.passes.recover import Recover


def device_of(name: str) -> torch.device:
    """The device of that name; a GPU for auto where torch sees one.

    Raises:
        OptionError: a GPU is wanted and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("torch sees no GPU", where="device", hint="Use --device cpu")
    return torch.device(name)


@contextlib.contextmanager
def surroundings(seed: int, device: torch.device, threads: int) -> Iterator[None]:
    """Seed and threads, and afterwards what they were."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        try:
            torch.set_num_threads(threads or before)
            yield
        finally:
            torch.set_num_threads(before)


def short(value: float) -> float | None:
    """Six digits: more would differ between machines without meaning anything."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def no_gradient(model: Model) -> ModelError:
    """No output depends on a weight in a way that could be followed."""
    blind = {"ArgMax", "ArgMin", "Equal", "Less", "Greater", "Sign", "Floor", "Ceil", "Round"}
    found = [f"{n.op_type} {n.name!r}" for n in model.graph if n.op_type in blind]
    return ModelError(
        f"has no output with a gradient; these let none through: {', '.join(found) or 'its types'}",
        where=model.name,
        hint="Train the model without them, up to the tensor before",
    )


def default_terms(model: Model, data: Dataset, *, features: bool) -> dict[str, float]:
    """The divergence of classes where labels show that there are classes, else the distance."""
    batch = next(iter(data.take(1)), None)
    if batch is None:
        raise DataError("has no rows", where=data.spec)
    labels = batch.labels
    shape = model.outputs[0].shape
    classes = labels is not None and np.asarray(labels).dtype.kind in "iu" and labels.ndim == 1
    terms = {"kd" if classes and shape is not None and len(shape) == 2 else "mse": 1.0}
    return terms | ({"features": 1.0} if features else {})


def identity_of(how: Recover, model: Model, teacher: Model, data: Dataset, seed: int) -> str:
    """What a checkpoint belongs to: everything but how long it trains and where it is kept."""
    plain = how.to_json()
    for name in ("resume", "checkpoint", "checkpoint_minutes", "data", "teacher", "time"):
        plain.pop(name, None)
    parts = [
        json.dumps(plain, sort_keys=True),
        model.digest,
        teacher.digest,
        data.digest,
        str(seed),
    ]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
