"""Parity of the exported model with the module: onnxruntime against torch."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab.core.errors import ExportError, ParityError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.core.text import shape_text

from .axes import LEAST, moved_sizes, nearest_size, sizes_outside
from .export_errors import forward_error
from .flat_module import FlatModule
from .given_module import type_advice
from .inputs import random_inputs
from .specs import Dynamic, Ranges

#: Largest error that is accepted as rounding, relative to the output's largest magnitude.
TOLERANCE, TOLERANCE_HALF = 1e-4, 1e-2
#: Error against float64 that is accepted, in multiples of torch's own: two orders of summation.
SLACK = 4.0
#: Own error up to which torch's float32 is an answer.
KNOWN = 1e-2


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
            return (
                f"has shape {shape_text(self.shapes[1])}, torch gives {shape_text(self.shapes[0])}"
            )
        return f"differs by {self.absolute:.1e} (relative {self.relative:.1e})"


def parity_trials(
    flat: FlatModule, dynamic: Dynamic, sizes: Mapping[str, int], ranges: Ranges, seed: int
) -> list[ParityTrial]:
    """Return the example, and other inputs at two batch sizes where the batch is dynamic.

    Raises:
        ExportError: the module itself fails at sizes of axes that were declared dynamic.
    """
    first = {axes[0] for axes in dynamic.values() if 0 in axes}
    made = [_run(flat, flat.call.tensors, "the example inputs", sizes)]
    for number, batch in enumerate((1, 4 if 3 in sizes.values() else 3), 1):
        batches = {name: nearest_size(batch, ranges.get(name)) for name in sizes if name in first}
        # The other axes change in the second trial.
        choices = moved_sizes(sizes, batches, ranges) if number == 2 else [{**sizes, **batches}]
        made.append(_trial(flat, dynamic, choices, seed + number))
    return made


def _trial(
    flat: FlatModule, dynamic: Dynamic, choices: Iterable[Mapping[str, int]], seed: int
) -> ParityTrial:
    """Return inputs of the first sizes that the module accepts."""
    failure: ExportError | None = None
    kind = "rows of the data" if flat.call.data else "random inputs"
    for sizes in choices:
        tensors = random_inputs(flat.call, dynamic, sizes, seed)
        named = ", ".join(f"{name}={size}" for name, size in sizes.items())
        what = f"{kind} with {named}" if named else f"{kind} of seed {seed}"
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
        # Copies: a forward may write into its inputs.
        outputs: tuple[Tensor, ...] = flat(*(t.clone() for t in tensors))
    except Exception as error:
        raise forward_error(error, flat.module, what) from error
    return outputs


@dataclass
class Proof:
    """Comparison of a loaded model with its module, trial by trial.

    Attributes:
        worst: largest difference of each output so far, by name.
        torch_own: torch's own error against float64 where an output was judged by that, by name.
        decisive: whether torch itself knew the answer in some trial.
    """

    session: Any
    model: Model
    flat: FlatModule
    tolerance: float | None
    worst: dict[str, OutputDifference] = field(default_factory=dict)
    torch_own: dict[str, float] = field(default_factory=dict)
    decisive: bool = False

    def take(self, trial: ParityTrial) -> tuple[str, OutputDifference, float] | None:
        """Compare on a trial; return the first output that differs, its error and the allowed one.

        Raises:
            ParityError: onnxruntime refuses the inputs.
        """
        expected = _forward(self.flat, trial.tensors, trial.what)
        try:
            got = run(self.session, as_feeds(self.model, trial.tensors))
        except RunError as error:
            raise ParityError(
                f"the model fails on {trial.what}: {error.what}",
                where=self.model.name,
                hint="Axes that belong together, as total = past + new, are recognized where the "
                "example's sizes add up. Leave an axis that changed out of --dynamic, give "
                "--data, or report it to PyTorch",
            ) from error
        exact: tuple[Tensor, ...] | None = None
        precise = True
        for index, (spec, tensor) in enumerate(zip(self.model.outputs, expected, strict=True)):
            array = to_numpy(tensor)
            usual = TOLERANCE_HALF if array.dtype == np.float16 else TOLERANCE
            allowed = usual if self.tolerance is None else self.tolerance
            found = difference(array, got[spec.name])
            if not found.relative <= allowed:
                if self.tolerance is not None or found.shapes:
                    return spec.name, found, allowed
                if exact is None and _repeats(expected, _forward(self.flat, trial.tensors, "")):
                    exact = in_float64(self.flat, trial.tensors)
                own = _rounding(exact, index, array)
                if own is None:
                    return spec.name, found, allowed
                theirs = difference(to_numpy(exact[index]), got[spec.name])  # type: ignore[index]
                if not theirs.relative <= max(allowed, SLACK * own):
                    return spec.name, theirs, max(allowed, SLACK * own)
                self.torch_own[spec.name] = max(self.torch_own.get(spec.name, 0.0), own)
                precise = precise and own <= KNOWN
            worst = self.worst.get(spec.name, found)
            self.worst[spec.name] = max(worst, found, key=lambda d: d.relative)
        self.decisive = self.decisive or precise
        return None

    def notes(self) -> dict[str, Any]:
        """Return the largest error of each output over all trials, as JSON values."""
        rows = {
            name: {"max_abs": _short(d.absolute), "max_rel": _short(d.relative)}
            for name, d in self.worst.items()
        }
        for name, own in self.torch_own.items():
            rows[name]["torch_max_rel"] = _short(own)
        return rows


def _repeats(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Return whether two runs on the same inputs agree: what draws numbers or counts does not."""
    return all(
        difference(to_numpy(a), to_numpy(b)).absolute == 0
        for a, b in zip(first, second, strict=True)
    )


def _rounding(exact: tuple[Tensor, ...] | None, index: int, array: Any) -> float | None:
    """Return the relative error of torch's output against float64, None where that is not known."""
    if exact is None or array.dtype.kind != "f":
        return None
    own = difference(to_numpy(exact[index]), array)
    return own.relative if math.isfinite(own.relative) else None


def in_float64(flat: FlatModule, tensors: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
    """Return the outputs of the module in float64, None where it cannot compute in that."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            twin = FlatModule(copy.deepcopy(flat.module).double(), flat.call)
            wide = [t.double() if t.is_floating_point() else t.clone() for t in tensors]
            outputs: tuple[Tensor, ...] = twin(*wide)
    except Exception:  # noqa: BLE001 - whatever a forward raises where types are fixed in it
        return None
    return outputs


def open_proof(model: Model, flat: FlatModule, tolerance: float | None) -> Proof:
    """Load the model and return the empty proof.

    Args:
        model: exported model.
        flat: the module in eval mode.
        tolerance: largest relative error; None for the default of the output's type, and for
            judging by float64 where torch's own rounding is larger.

    Raises:
        ParityError: onnxruntime refuses the model.
    """
    try:
        return Proof(build_session(model), model, flat, tolerance)
    except RunError as error:
        raise ParityError(
            f"torch wrote a model that does not load: {error.what}",
            where=model.name,
            hint=type_advice(flat.module) or "Try another --opset; else report it to PyTorch",
        ) from error


def check_parity(
    proof: Proof,
    compared: Sequence[ParityTrial],
    *,
    locate: Callable[[ParityTrial], str] | None,
    changed: Sequence[str] = (),
) -> dict[str, Any]:
    """Compare the outputs and return the largest error of each over all trials, as JSON values.

    Args:
        proof: the loaded model with its module.
        compared: inputs to compare on.
        locate: finds the first place that differs on a trial.
        changed: buffers that `forward` changes.

    Raises:
        ParityError: an output differs, which is named, or torch itself does not know the answer.
    """
    for trial in compared:
        differs = proof.take(trial)
        if differs:
            name, found, allowed = differs
            place = f"; {locate(trial)}" if locate else ""
            more = "" if locate else "; locate=True names the node (--locate)"
            state = f" (it changes the buffer {changed[0]})" if changed else ""
            raise ParityError(
                f"output {name!r} {found} on {trial.what}; {allowed:.0e} is allowed{place}",
                where=proof.model.name,
                hint=f"A forward that draws random numbers, keeps state{state} or branches on "
                f"Python values can cause that{more}. --tolerance permits more. Written by torch "
                f"{torch.__version__} and onnxscript {metadata.version('onnxscript')}",
            )
    if not proof.decisive:
        name, own = max(proof.torch_own.items(), key=lambda item: item[1])
        raise ParityError(
            f"torch's own float32 is {own:.1e} off its float64 on all inputs, output {name!r}: "
            "no comparison can prove anything",
            where=proof.model.name,
            hint="Give inputs on which the module computes well (--data), or set --tolerance",
        )
    return proof.notes()


def check_edges(
    proof: Proof,
    dynamic: Dynamic,
    sizes: Mapping[str, int],
    captured: Ranges,
    ranges: Ranges,
    seed: int,
) -> Ranges:
    """Try sizes just outside of torch's capture; return the ranges for which the model is made.

    Where the module fails there as well, the range is the module's own.

    Raises:
        ExportError: the module answers there, otherwise than the model: it branches on the size.
    """
    first = {axes[0] for axes in dynamic.values() if 0 in axes}
    for name, size, tried in sizes_outside(sizes, captured, ranges, first):
        try:
            trial = _trial(proof.flat, dynamic, [tried], seed)
        except ExportError:
            continue
        try:
            wrong = proof.take(trial) is not None
        except ParityError:
            wrong = True
        if wrong:
            low, high = captured.get(name, (LEAST, None))
            claim = f"{name}<={high}" if high is not None and size > high else f"{name}>={low}"
            axes = (f"{n}={a}" for n, named in dynamic.items() for a in named if named[a] == name)
            raise ExportError(
                f"the module branches on the size of axis {name!r}, and the graph keeps one "
                f"branch: proved for {claim}, it answers otherwise at {size}",
                where=f"dynamic axis {name!r}",
                hint=f"Claim that range alone, --dynamic {next(axes)}:'{claim}', or leave the "
                "axis out",
            )
    claimed = {n: r for n, r in captured.items() if r != (LEAST, None)}
    return {**claimed, **ranges}


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
