"""What a training run needs around it: where, how seeded, and what it says."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator

import torch

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, ModelError, OptionError
from trimtab.core.metric import labels_are_classes
from trimtab.core.model import Model

from .module import TorchGraph
from .roles import FLOATS

#: A run of fewer steps takes one thread: to time some would take as long.
FEW_STEPS = 200
#: Operators whose results do not follow their inputs smoothly.
_BLIND = frozenset(
    {
        *("ArgMax", "ArgMin", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"),
        *("Sign", "Floor", "Ceil", "Round", "Not", "And", "Or", "Xor", "Cast", "TopK", "NonZero"),
        *("Shape", "Size"),
    }
)


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
            # What is to be chosen by timing starts from one, and short runs stay there.
            torch.set_num_threads(threads or 1)
            yield
        finally:
            torch.set_num_threads(before)


def short(value: float) -> float | None:
    """Six digits: more would differ between machines without meaning anything."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def no_gradient(model: Model) -> ModelError:
    """No output depends on a weight in a way that could be followed."""
    found = _blind(model)
    return ModelError(
        f"has no output with a gradient; these let none through: {', '.join(found) or 'its types'}",
        where=model.name,
        hint="Train the model without them, up to the tensor before",
    )


def default_terms(model: Model, data: Dataset, *, features: bool) -> dict[str, float]:
    """The divergence of classes where labels show that there are classes, else the distance."""
    if not len(data):
        raise DataError("has no rows", where=data.spec)
    terms = {"kd" if labels_are_classes(model, data) else "mse": 1.0}
    return terms | ({"features": 1.0} if features else {})


def without_gradient(model: Model, module: TorchGraph) -> tuple[list[str], list[str]]:
    """Weights that got no gradient from a batch, and the operators that let none through."""
    names = [
        name
        for name, tensor in module.named_weights("kernel", "vector").items()
        if tensor.requires_grad and (tensor.grad is None or not bool(tensor.grad.any()))
    ]
    return names, _blind(model)


def _blind(model: Model) -> list[str]:
    """Operators between floats that have no gradient."""
    found = [n for n in model.graph if n.op_type in _BLIND]
    casts = [n for n in found if n.op_type == "Cast" and n.outputs[0].dtype in FLOATS]
    return [f"{n.op_type} {n.name!r}" for n in found if n not in casts]


def fastest_threads(work: Callable[[], object], rounds: int = 3) -> int:
    """The number of threads that work is fastest with: on a busy machine that may be one.

    Args:
        work: what is timed.
        rounds: times that each number has its turn; the shortest time counts.
    """
    most = os.cpu_count() or 1
    counts = sorted({1, max(most // 2, 1), most})
    spent = dict.fromkeys(counts, math.inf)
    for turn in range(rounds + 1):
        for count in counts:
            torch.set_num_threads(count)
            start = time.perf_counter()
            work()
            if turn:  # the first turn warms up
                spent[count] = min(spent[count], time.perf_counter() - start)
    return min(counts, key=lambda c: spent[c])
