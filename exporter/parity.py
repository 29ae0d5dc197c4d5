"""Parity of the exported model with the module: onnxruntime against torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from trimtab.core.errors import ExportError, ParityError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run

from .export_errors import forward_error
from .flat_module import FlatModule
from .inputs import random_inputs
from .specs import Dynamic

#: Largest error that is accepted as rounding, relative to the output's largest magnitude.
TOLERANCE, TOLERANCE_HALF = 1e-4, 1e-2


@dataclass(frozen=True)
class ParityTrial:
    """Inputs on which model and module are compared.

    Attributes:
        tensors: inputs in the order of the graph.
        what: description for messages.
        sizes: sizes of the named axes.
        shapes: shapes of the module's outputs.
    """

    tensors: tuple[Tensor, ...]
    what: str
    sizes: Mapping[str, int]
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class OutputDifference:
    """Difference between an output of onnxruntime and torch's.

    Attributes:
        absolute: largest absolute error.
        relative: largest absolute error over the largest magnitude of torch's output.
        shapes: both shapes where they differ, else None.
    """

    absolute: float
    relative: float
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def __str__(self) -> str:
        if self.shapes:
            return f"has shape {list(self.shapes[1])}, torch gives {list(self.shapes[0])}"
        return f"differs by {self.absolute:.1e} (relative {self.relative:.1e})"


def parity_trials(
    flat: FlatModule, dynamic: Dynamic, sizes: Mapping[str, int], seed: int
) -> list[ParityTrial]:
    """Return the example, and random inputs at two batch sizes where the batch is dynamic.

    Raises:
        ExportError: the module itself fails at sizes of axes that were declared dynamic.
    """
    first = {axes[0] for axes in dynamic.values() if 0 in axes}
    made = [_run(flat, flat.call.tensors, "the example inputs", sizes)]
    for number, batch in enumerate((1, 4 if 3 in sizes.values() else 3), 1):
        batches = {name: batch for name in sizes if name in first}
        # The other axes change in the second trial, down if possible: tables have an end.
        moved = {n: (s - 1 if s > 3 else s + 1) if number == 2 else s for n, s in sizes.items()}
        made.append(_trial(flat, dynamic, [moved | batches, {**sizes, **batches}], seed + number))
    return made


def _trial(
    flat: FlatModule, dynamic: Dynamic, choices: Sequence[Mapping[str, int]], seed: int
) -> ParityTrial:
    """Return random inputs of the first sizes that the module accepts."""
    failure: ExportError | None = None
    for sizes in choices:
        tensors = random_inputs(flat.call, dynamic, sizes, seed)
        named = ", ".join(f"{name}={size}" for name, size in sizes.items())
        what = f"random inputs with {named}" if named else f"random inputs of seed {seed}"
        try:
            return _run(flat, tensors, what, sizes)
        except ExportError as error:
            failure = failure or error
    raise failure or ExportError("there are no sizes to compare at")


def _run(
    flat: FlatModule, tensors: tuple[Tensor, ...], what: str, sizes: Mapping[str, int]
) -> ParityTrial:
    outputs = _forward(flat, tensors, what)
    return ParityTrial(tensors, what, sizes, tuple(tuple(t.shape) for t in outputs))


def _forward(flat: FlatModule, tensors: tuple[Tensor, ...], what: str) -> tuple[Tensor, ...]:
    try:
        outputs: tuple[Tensor, ...] = flat(*tensors)
    except Exception as error:
        raise forward_error(error, flat.module, what) from error
    return outputs


def check_parity(
    model: Model,
    flat: FlatModule,
    compared: Sequence[ParityTrial],
    *,
    tolerance: float | None,
    locate: Callable[[ParityTrial], str] | None,
) -> dict[str, Any]:
    """Compare the outputs and return the largest error of each over all trials, as JSON values.

    Args:
        model: exported model.
        flat: the module in eval mode.
        compared: inputs to compare on.
        tolerance: largest relative error; None for the default of the output's type.
        locate: finds the first place that differs on a trial.

    Raises:
        ParityError: an output differs, which is named, or onnxruntime refuses the model.
    """
    try:
        session = build_session(model)
    except RunError as error:
        raise ParityError(
            f"torch wrote a model that does not load: {error.what}",
            where=model.name,
            hint="Its CPU kernels know few operators in bfloat16: export module.float()"
            if "implementation" in error.what
            else "Try another --opset; else report it to PyTorch",
        ) from error
    worst: dict[str, OutputDifference] = {}
    for trial in compared:
        for name, found, allowed in _compare(session, model, flat, trial, tolerance):
            if not found.relative <= allowed:
                place = f"; {locate(trial)}" if locate else ""
                more = "" if locate else "; locate=True names the node (--locate)"
                raise ParityError(
                    f"output {name!r} {found} on {trial.what}; {allowed:.0e} is allowed{place}",
                    where=model.name,
                    hint="A forward that draws random numbers, keeps state or branches on Python "
                    f"values can cause that{more}",
                )
            worst[name] = max(worst.get(name, found), found, key=lambda d: d.relative)
    return {
        n: {"max_abs": _short(d.absolute), "max_rel": _short(d.relative)} for n, d in worst.items()
    }


def _compare(
    session: Any, model: Model, flat: FlatModule, trial: ParityTrial, tolerance: float | None
) -> list[tuple[str, OutputDifference, float]]:
    """Return each output's difference and the allowed one."""
    expected = _forward(flat, trial.tensors, trial.what)
    try:
        got = run(session, as_feeds(model, trial.tensors))
    except RunError as error:
        raise ParityError(
            f"the model fails on {trial.what}: {error.what}",
            where=model.name,
            hint="Leave the axes that changed out of --dynamic, or report it to PyTorch",
        ) from error
    rows = []
    for spec, tensor in zip(model.outputs, expected, strict=True):
        array = to_numpy(tensor)
        usual = TOLERANCE_HALF if array.dtype == np.float16 else TOLERANCE
        allowed = usual if tolerance is None else tolerance
        rows.append((spec.name, difference(array, got[spec.name]), allowed))
    return rows


def as_feeds(model: Model, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Return tensors as feeds of the model's inputs, in their order."""
    return {s.name: to_numpy(t) for s, t in zip(model.inputs, tensors, strict=True)}


def to_numpy(tensor: Tensor) -> Any:
    """Return the tensor as an array on the CPU."""
    return tensor.detach().cpu().contiguous().numpy()


def difference(expected: Any, got: Any) -> OutputDifference:
    """Compare two outputs; NaN and infinity must agree, integers must be equal."""
    if expected.shape != got.shape:
        return OutputDifference(math.inf, math.inf, (expected.shape, got.shape))
    if expected.dtype.kind not in "fc":
        a, b = expected.astype(np.float64), got.astype(np.float64)
        off = float(np.abs(a - b).max(initial=0.0))
        return OutputDifference(off, math.inf if off else 0.0)
    a, b = expected.astype(np.result_type(expected, np.float64)), got
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return OutputDifference(math.inf, math.inf)
    if not finite.any():
        return OutputDifference(0.0, 0.0)
    absolute = float(np.abs(a[finite] - b[finite]).max())
    if not math.isfinite(absolute):  # NaN or infinity where torch has numbers
        return OutputDifference(math.inf, math.inf)
    return OutputDifference(absolute, absolute / max(float(np.abs(a[finite]).max()), 1e-6))


def _short(value: float) -> float:
    """Round to two digits: further ones depend on the machine."""
    return float(f"{value:.1e}")
