"""Errors of each layer of an int8 model, measured over data with switches, as sums.

Memory is that of one run, limited to a fixed size, and of tensors x bins, whatever the samples.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.batches import fixed_rows, in_runs
from trimtab.core.context import Context
from trimtab.core.data import Batch, Floats
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.metrics.fidelity import squared_parts
from trimtab.core.metrics.kinds import OutputKind
from trimtab.core.metrics.recognition import kind_of
from trimtab.core.model import Model
from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.session import Outputs, SessionConfig, build_session, run
from trimtab.core.target import usable_cpus

from ..calibration.collector import CHUNK_BYTES
from ..calibration.statistics import Statistics
from .layers import Activation, DiagnosedLayer, Kind, SquaredError
from .switches import SwitchableModel

#: Samples on which each layer runs in int8 alone.
ALONE_SAMPLES = 16
#: Number of worst layers whose weights, biases and activations are measured separately.
SEPARATED = 12
#: Shares of the time after which no more samples are compared, layers run alone, causes separated.
COMPARED, ALONE, CAUSES = 0.2, 0.85, 0.95
#: Ratio to the error without the biases' changes, up to which these are no fault.
HARMLESS = 1.05
#: Approximate values per tensor and run that enter its histogram.
HISTOGRAM_VALUES = 1 << 16


class DiagnosisTime:
    """Time for a diagnosis.

    Args:
        seconds: how long it may take; None for no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._start, self._seconds = time.monotonic(), seconds

    def past(self, share: float) -> bool:
        """Return whether more than this share of the time has passed."""
        if self._seconds is None:
            return False
        return time.monotonic() - self._start > share * self._seconds


@dataclass
class OutputSquaredError:
    """Squared error of all float outputs of a model, that of each part relative to its size.

    Boxes and scores of one output are two parts: in pixels, the error of the boxes would hide that
    no object is found any more.
    """

    outputs: dict[str, Floats] = field(default_factory=dict)

    def add(self, got: Outputs, exact: Outputs, kinds: Mapping[str, OutputKind]) -> None:
        """Add a run, of the outputs whose kinds are given."""
        for name, kind in kinds.items():
            parts = squared_parts(kind, got[name], exact[name])
            self.outputs[name] = self.outputs.get(name, 0.0) + parts

    @property
    def relative(self) -> float:
        """Mean over outputs, of each the mean over its parts."""
        errors = [
            np.divide(noise, size, out=(noise > 0).astype(np.float64), where=size > 0).mean()
            for noise, size in self.outputs.values()
        ]
        return float(np.mean(errors)) if errors else 0.0


@dataclass
class LayerStatistics:
    """Statistics of an activation of a layer in float.

    Attributes:
        values: extremes and histogram of its values.
        clipped: number of values outside of the quantizer's range.
        count: number of values.
    """

    values: Statistics = field(default_factory=Statistics)
    clipped: int = 0
    count: int = 0

    def add(self, array: NDArray[Any], batch: int, activation: Activation) -> None:
        """Add a run."""
        self.values.update(array, batch, HISTOGRAM_VALUES)
        self.count += array.size
        if activation.grid is not None:
            (low, high), half = activation.grid.range, activation.grid.step / 2
            self.clipped += int(np.count_nonzero((array < low - half) | (array > high + half)))


@dataclass
class LayerMeasurement:
    """Errors of one layer.

    Attributes:
        layer: measured layer.
        sensitivity: error of the output with this layer alone in int8.
        by_kind: error of the output with one kind of its quantizers alone, for the worst layers.
        alone: error of its own output with it alone in int8.
        accumulated: error of its own output with everything in int8.
        shift: share of its error alone that is a shift of channels' means.
        statistics: its activations in float, in the order of `layer.activations`.
        mixed: true where its output holds boxes beside scores.
    """

    layer: DiagnosedLayer
    sensitivity: OutputSquaredError = field(default_factory=OutputSquaredError)
    by_kind: dict[Kind, OutputSquaredError] = field(default_factory=dict)
    alone: SquaredError = field(default_factory=SquaredError)
    accumulated: SquaredError = field(default_factory=SquaredError)
    shift: float = 0.0
    statistics: list[LayerStatistics] = field(default_factory=list)
    mixed: bool = False

    @property
    def ran_alone(self) -> bool:
        """True where it was measured alone, for which time may be short."""
        return bool(self.sensitivity.outputs)


@dataclass
class ModelMeasurements:
    """Errors of all layers of a model.

    Attributes:
        layers: layers in graph order.
        together: error of the output with everything in int8, in exact arithmetic.
        running: the same from this machine's kernels, on the first samples.
        simulated: `together` on the samples of `running`.
        uncorrected: `together` on the samples of `running`, with the biases of the float model.
        samples: number of samples.
        alone_samples: number of those on which layers ran alone.
        left_out: questions that time did not allow, as sentences.
    """

    layers: list[LayerMeasurement]
    together: OutputSquaredError = field(default_factory=OutputSquaredError)
    running: OutputSquaredError = field(default_factory=OutputSquaredError)
    simulated: OutputSquaredError = field(default_factory=OutputSquaredError)
    uncorrected: OutputSquaredError = field(default_factory=OutputSquaredError)
    samples: int = 0
    alone_samples: int = 0
    left_out: list[str] = field(default_factory=list)

    @property
    def biases_help(self) -> bool:
        """True where the biases' differences from the float model make the whole no worse.

        They then make up for the rounding of weights, which no layer alone can show.
        """
        return self.simulated.relative <= HARMLESS * self.uncorrected.relative


def measure(
    model: Model,
    switched: SwitchableModel,
    data: Dataset,
    ctx: Context,
    budget: DiagnosisTime | None = None,
) -> ModelMeasurements:
    """Run a model with switches over data: in float, in int8, and in int8 in one layer alone.

    The model without switches shows the error of this machine's kernels. Where time is short, all
    questions are asked on fewer samples.

    Raises:
        DataError: a float tensor takes NaN or infinity.
    """
    return _Measurer(model, switched, budget or DiagnosisTime()).over(data, ctx)


class _Measurer:
    def __init__(self, model: Model, switched: SwitchableModel, budget: DiagnosisTime) -> None:
        self.model, self.switched, self.budget = model, switched, budget
        self.layers = [
            LayerMeasurement(layer, statistics=[LayerStatistics() for _ in layer.activations])
            for layer in switched.layers
        ]
        self.outputs = _judged(switched.model, model)
        self.kinds: dict[str, OutputKind] = {}
        read = [[layer.output, *(a.tensor for a in layer.activations)] for layer in switched.layers]
        intermediate = list(dict.fromkeys(itertools.chain.from_iterable(read)))
        observed = with_outputs(switched.model, [*self.outputs, *intermediate])
        # Level basic does not fuse Q and DQ, so that each can be switched.
        config = SessionConfig.for_inner_tensors("basic")
        self.session = build_session(observed, config)
        self.every = list(dict.fromkeys([*self.outputs, *intermediate]))
        self.shifts: list[_MeanShift] = [_MeanShift() for _ in self.layers]

    def over(self, data: Dataset, ctx: Context) -> ModelMeasurements:
        made = ModelMeasurements(self.layers)
        rows = self._rows(data)
        few: list[Batch] = []
        total = data.batches if data.source.batched else -(-len(data) // rows)
        runs = in_runs(self.model, data.sized(rows), rows)
        for batch in ctx.progress.track(runs, "comparing int8 with float", total):
            few += [batch] if sum(b.size for b in few) < ALONE_SAMPLES else []
            self._one(batch, made)
            if self.budget.past(COMPARED):
                break
        if made.samples < len(data):
            made.left_out.append(f"{made.samples} of {len(data)} samples were compared")
        self._as_it_runs(few[:1], made)
        self._alone(few, made, ctx)
        for measured, shift in zip(self.layers, self.shifts, strict=True):
            measured.shift = shift.share
        self._separate_kinds(few, made, ctx)
        if len(few) > 1 and not self.budget.past(CAUSES):
            self._as_it_runs(few[1:], made)
        return made

    def _run(self, batch: Batch, on: Sequence[tuple[int, Kind]], names: Sequence[str]) -> Outputs:
        feeds = {**batch.feeds, **self.switched.feeds(on)}
        return run(self.session, feeds, names, only_needed=True)

    def _rows(self, data: Dataset) -> int:
        """Return the samples of a run: two copies of the observed tensors stay within bounds."""
        fixed = fixed_rows(self.model)
        if fixed is not None:
            return fixed
        for batch in data.sized(1).take(1):
            arrays = self._run(batch, [], self.every)
            nbytes = 2 * sum(a.nbytes for a in arrays.values()) / max(batch.size, 1)
            return int(np.clip(CHUNK_BYTES // max(nbytes, 1), 1, ALONE_SAMPLES))
        return 1

    def _one(self, batch: Batch, made: ModelMeasurements) -> None:
        exact = self._run(batch, [], self.every)
        bad = next((n for n, a in exact.items() if not np.isfinite(a).all()), None)
        if bad is not None:
            raise DataError(
                f"tensor {bad!r} takes NaN or infinity in float",
                where=self.model.name,
                hint="Look at the data, or at the float model",
            )
        self._look(exact)
        rounded = self._run(batch, self.switched.all_on(), self.every)
        made.together.add(rounded, exact, self.kinds)
        for measured in self.layers:
            layer = measured.layer
            measured.accumulated.add(rounded[layer.output], exact[layer.output])
            for found, activation in zip(measured.statistics, layer.activations, strict=True):
                found.add(exact[activation.tensor], batch.size, activation)
        made.samples += batch.size

    def _look(self, exact: Outputs) -> None:
        """Find out what the outputs are, and which layers hold boxes beside scores."""
        if self.kinds:
            return
        # By their values alone: switches hide the operators that made them.
        self.kinds = {name: kind_of(None, exact[name]) for name in self.outputs}
        if any(kind.kind == "detections" for kind in self.kinds.values()):
            for measured in self.layers:
                array = exact[measured.layer.output]
                measured.mixed = kind_of(None, array).kind == "detections"

    def _alone(self, few: Sequence[Batch], made: ModelMeasurements, ctx: Context) -> None:
        """Run each layer in int8 alone, those of the largest error first."""
        order = sorted(range(len(self.layers)), key=lambda i: -self.layers[i].accumulated.relative)
        done = 0
        questions = [(batch, i) for batch in few for i in order]
        exact: Outputs = {}
        for batch, i in ctx.progress.track(questions, "running layers alone", len(questions)):
            if self.budget.past(ALONE):
                break
            if i == order[0]:
                exact = self._run(batch, [], self.every)
            self._one_alone(batch, i, exact, made)
            done += 1
        rounds, rest = divmod(done, max(len(order), 1))
        made.alone_samples = sum(b.size for b in few[: rounds + bool(rest)])
        if done < len(questions):
            part = f"{rounds} of {len(few)} runs" if rounds else f"{done} of {len(order)} layers"
            made.left_out.append(f"layers ran alone in {part}")

    def _one_alone(self, batch: Batch, i: int, exact: Outputs, made: ModelMeasurements) -> None:
        measured = self.layers[i]
        layer = measured.layer
        on = [(at, kind) for at, kind in self.switched.layer_on(i) if self._blamed(kind, made)]
        wanted = list(dict.fromkeys([*self.outputs, layer.output]))
        got = self._run(batch, on, wanted)
        measured.sensitivity.add(got, exact, self.kinds)
        measured.alone.add(got[layer.output], exact[layer.output])
        self.shifts[i].add(got[layer.output] - exact[layer.output])

    @staticmethod
    def _blamed(kind: Kind, made: ModelMeasurements) -> bool:
        return kind != "bias" or not made.biases_help

    def _separate_kinds(self, few: Sequence[Batch], made: ModelMeasurements, ctx: Context) -> None:
        """Measure weights, biases and activations separately, in the worst layers."""
        order = sorted(range(len(self.layers)), key=lambda i: -self.layers[i].sensitivity.relative)
        kinds_of = {
            i: [k for k in self.layers[i].layer.kinds if self._blamed(k, made)] for i in order
        }
        worst = [i for i in order[:SEPARATED] if len(kinds_of[i]) > 1]
        for i in order:  # what is not measured is not to be blamed either
            if len(kinds_of[i]) == 1:
                self.layers[i].by_kind = {kinds_of[i][0]: self.layers[i].sensitivity}
        for batch in ctx.progress.track(few, "separating causes", len(few)):
            exact = self._run(batch, [], self.outputs)
            for i in worst:
                for kind in kinds_of[i]:
                    error = self.layers[i].by_kind.setdefault(kind, OutputSquaredError())
                    error.add(self._run(batch, [(i, kind)], self.outputs), exact, self.kinds)
            if self.budget.past(CAUSES):
                break

    def _as_it_runs(self, few: Sequence[Batch], made: ModelMeasurements) -> None:
        running = with_outputs(self.model, self.outputs)
        session = build_session(running, SessionConfig(threads=usable_cpus()))
        everything = self.switched.all_on()
        without_biases = [(i, kind) for i, kind in everything if kind != "bias"]
        for batch in few:
            exact = self._run(batch, [], self.outputs)
            made.running.add(run(session, batch.feeds, self.outputs), exact, self.kinds)
            made.simulated.add(self._run(batch, everything, self.outputs), exact, self.kinds)
            rounded = self._run(batch, without_biases, self.outputs)
            made.uncorrected.add(rounded, exact, self.kinds)


def _judged(switched: Model, running: Model) -> list[str]:
    """Return the float outputs; where all are classes or the like, what these are chosen from."""
    outputs = [s.name for s in switched.outputs if s.dtype.is_floating_point()]
    if outputs:
        return outputs
    present = {v.name for node in running.graph for v in node.outputs}
    level, found = list(switched.graph.outputs), dict[str, None]()
    seen: set[ir.Node] = set()
    while level:
        value = level.pop()
        node = value.producer()
        if node is None:
            continue
        if value.name in present and value.dtype is not None and value.dtype.is_floating_point():
            found[str(value.name)] = None
        elif node not in seen:
            seen.add(node)
            level += [v for v in node.inputs if v is not None and v.const_value is None]
    return list(found)


class _MeanShift:
    """Share of an error that is one number for each channel."""

    def __init__(self) -> None:
        self.sums: NDArray[np.float64] = np.zeros(())
        self.noise = 0.0
        self.count = 0

    def add(self, error: NDArray[Any]) -> None:
        channels = error.ndim - 1 if error.ndim != 4 else 1
        flat = np.moveaxis(np.atleast_2d(error), channels, -1) if error.ndim > 1 else error[None]
        flat = flat.reshape(-1, flat.shape[-1]).astype(np.float64)
        if self.count and self.sums.shape != flat.shape[1:]:
            return  # its size varies: not channels
        self.sums = self.sums + flat.sum(axis=0)
        self.noise += float(np.square(flat).sum())
        self.count += len(flat)

    @property
    def share(self) -> float:
        if not self.noise:
            return 0.0
        return float(np.square(self.sums).sum() / self.count / self.noise)
