"""Environment of a training run: device, seed, threads, and diagnosis of missing gradients."""

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

from ...graph.queries import node_label
from .module import TorchGraph
from .roles import FLOATS

#: Steps of a run below which timing thread counts would not pay; it takes one thread.
FEW_STEPS = 200
#: Operators without a useful gradient.
_NON_DIFFERENTIABLE = frozenset(
    {
        *("ArgMax", "ArgMin", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"),
        *("Sign", "Floor", "Ceil", "Round", "Not", "And", "Or", "Xor", "Cast", "TopK", "NonZero"),
        *("Shape", "Size"),
    }
)


def select_device(name: str) -> torch.device:
    """Return the device of that name; for auto a GPU where torch sees one.

    Raises:
        OptionError: a GPU is requested and torch sees none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("torch sees no GPU", where="device", hint="Use --device cpu")
    return torch.device(name)


@contextlib.contextmanager
def training_environment(seed: int, device: torch.device, threads: int) -> Iterator[None]:
    """Set seed and threads, and restore both afterwards."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        try:
            # Where the number is chosen by timing, it starts from one; short runs stay there.
            torch.set_num_threads(threads or 1)
            yield
        finally:
            torch.set_num_threads(before)


def six_digits(value: float) -> float | None:
    """Round to six digits: further ones differ between machines; None for infinity and NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def no_gradient_error(model: Model) -> ModelError:
    """Return the error for a model no output of which has a gradient."""
    found = _non_differentiable(model)
    return ModelError(
        f"has no output with a gradient; these let none through: {', '.join(found) or 'its types'}",
        where=model.name,
        hint="Train the model without them, up to the tensor before",
    )


def default_terms(model: Model, data: Dataset, *, features: bool) -> dict[str, float]:
    """Choose kd where labels show that outputs are classes, else mse."""
    if not len(data):
        raise DataError("has no rows", where=data.spec)
    terms = {"kd" if labels_are_classes(model, data) else "mse": 1.0}
    return terms | ({"features": 1.0} if features else {})


def weights_without_gradient(model: Model, module: TorchGraph) -> tuple[list[str], list[str]]:
    """Return the weights that got no gradient from a batch, and the operators that block it."""
    weights = module.named_weights("kernel", "vector")
    trained = {name: tensor.grad for name, tensor in weights.items() if tensor.requires_grad}
    names = [name for name, grad in trained.items() if grad is None or not bool(grad.any())]
    return names, _non_differentiable(model)


def _non_differentiable(model: Model) -> list[str]:
    """Return the operators between floats that have no gradient."""
    return [
        f"{n.op_type} {node_label(n)!r}"
        for n in model.graph
        if n.op_type in _NON_DIFFERENTIABLE
        and not (n.op_type == "Cast" and n.outputs[0].dtype in FLOATS)
    ]


def fastest_threads(work: Callable[[], object], rounds: int = 3) -> int:
    """Return the number of threads with which work is fastest, by the best of some rounds."""
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
