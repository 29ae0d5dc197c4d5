"""Running an int8 model with its switches over data: errors of each layer, as sums alone.

Memory is that of one run, cut to a fixed size, and of tensors x bins, whatever the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.batches import fixed_rows, in_runs
from trimtab.core.context import Context
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.model import Model
from trimtab.core.ort.session import Outputs, SessionConfig, build_session, run, with_outputs
from trimtab.core.target import usable_cpus

from ..calibration.collector import CHUNK_BYTES
from ..calibration.statistics import Statistics
from .layers import Activation, Kind, Layer
from .switches import Switched

#: Samples on which each layer is run int8 alone.
ALONE_SAMPLES = 16
#: Layers, the worst first, whose weights, biases and activations are told apart.
DISSECTED = 12
#: Values per tensor and run that go into its histogram, about.
HISTOGRAM_VALUES = 1 << 16


@dataclass
class Error:
    """Squared error of a tensor against what it is in float."""

    noise: float = 0.0
    size: float = 0.0

    def add(self, got: NDArray[Any], exact: NDArray[Any]) -> None:
        """Take in a run."""
        exact = exact.astype(np.float64, copy=False)
        self.noise += float(np.square(got - exact).sum())
        self.size += float(np.square(exact).sum())

    @property
    def relative(self) -> float:
        """The error relative to the tensor's own size, squared."""
        return self.noise / self.size if self.size else float(self.noise > 0)


@dataclass
class Answer:
    """Error of all float outputs of a model, each relative to its size."""

    outputs: dict[str, Error] = field(default_factory=dict)

    def add(self, got: Outputs, exact: Outputs, names: Sequence[str]) -> None:
        """Take in a run."""
        for name in names:
            self.outputs.setdefault(name, Error()).add(got[name], exact[name])

    @property
    def relative(self) -> float:
        """Mean over outputs."""
        errors = [error.relative for error in self.outputs.values()]
        return float(np.mean(errors)) if errors else 0.0


@dataclass
class Seen:
    """What was seen of an activation in float.

    Attributes:
        statistics: extremes and histogram of its values.
        clipped: values outside of the quantizer's range.
        count: values altogether.
    """

    statistics: Statistics = field(default_factory=Statistics)
    clipped: int = 0
    count: int = 0

    def add(self, array: NDArray[Any], batch: int, activation: Activation) -> None:
        """Take in a run."""
        self.statistics.update(array, batch, HISTOGRAM_VALUES)
        self.count += array.size
        if activation.grid is not None:
            low, high = activation.grid.range
            half = activation.grid.step / 2
            outside = np.count_nonzero(array < low - half) + np.count_nonzero(array > high + half)
            self.clipped += int(outside)


@dataclass
class Measured:
    """Errors of one layer.

    Attributes:
        layer: which.
        harm: of the answer with this layer alone in int8.
        parts: of the answer with one kind of its quantizers alone, for the worst layers.
        alone: of its own output with it alone in int8.
        accumulated: of its own output with everything in int8.
        shift: part of its error alone that is a shift of channels' means.
        seen: its activations in float, in the order of `layer.activations`.
    """

    layer: Layer
    harm: Answer = field(default_factory=Answer)
    parts: dict[Kind, Answer] = field(default_factory=dict)
    alone: Error = field(default_factory=Error)
    accumulated: Error = field(default_factory=Error)
    shift: float = 0.0
    seen: list[Seen] = field(default_factory=list)


@dataclass
class Measurements:
    """What was measured of a model.

    Attributes:
        layers: in graph order.
        together: error of the answer with everything in int8, as the file says.
        running: the same as this machine's kernels compute it, on the first samples.
        simulated: what `together` is on the samples of `running`.
        samples: samples altogether.
    """

    layers: list[Measured]
    together: Answer = field(default_factory=Answer)
    running: Answer = field(default_factory=Answer)
    simulated: Answer = field(default_factory=Answer)
    samples: int = 0


def measure(model: Model, switched: Switched, data: Dataset, ctx: Context) -> Measurements:
    """Run a model over data: float, int8, and int8 in one layer alone.

    Args:
        model: as it was given, to see what this machine's kernels make of it.
        switched: the same with switches.
        data: fits the model.
        ctx: for progress.

    Raises:
        DataError: a float tensor takes NaN or infinity.
    """
    return _Measuring(model, switched).over(data, ctx)


class _Measuring:
    def __init__(self, model: Model, switched: Switched) -> None:
        self.model, self.switched = model, switched
        self.layers = [
            Measured(layer, seen=[Seen() for _ in layer.activations]) for layer in switched.layers
        ]
        outputs = switched.model.outputs
        self.answers = [spec.name for spec in outputs if spec.dtype.is_floating_point()]
        self.inner = list(
            dict.fromkeys(
                name
                for layer in switched.layers
                for name in (layer.output, *(a.tensor for a in layer.activations))
            )
        )
        observed = with_outputs(switched.model, self.inner)
        # Q and DQ are run as they stand, so that each can be told from the other.
        self.config = SessionConfig(level="basic", threads=usable_cpus())
        self.session = build_session(observed, self.config)
        self.every = list(dict.fromkeys([*self.answers, *self.inner]))
        self.shifts: list[_Shift] = [_Shift() for _ in self.layers]

    def over(self, data: Dataset, ctx: Context) -> Measurements:
        made = Measurements(self.layers)
        rows = self._rows(data)
        few: list[Batch] = []
        total = data.batches if data.source.batched else -(-len(data) // rows)
        runs = in_runs(self.model, data.sized(rows), rows)
        for batch in ctx.progress.track(runs, "comparing int8 with float", total):
            alone = sum(b.size for b in few) < ALONE_SAMPLES
            self._one(batch, made, alone=alone)
            few += [batch] if alone else []
            made.samples += batch.size
        for measured, shift in zip(self.layers, self.shifts, strict=True):
            measured.shift = shift.part
        self._dissect(few, ctx)
        self._as_it_runs(few, made)
        return made

    def _run(self, batch: Batch, on: Sequence[tuple[int, Kind]], names: Sequence[str]) -> Outputs:
        feeds = {**batch.feeds, **self.switched.feeds(on)}
        return run(self.session, feeds, names, only_needed=True)

    def _rows(self, data: Dataset) -> int:
        """Samples of a run, so that two copies of the observed tensors stay within bounds."""
        fixed = fixed_rows(self.model)
        if fixed is not None:
            return fixed
        for batch in data.sized(1).take(1):
            arrays = self._run(batch, [], self.every)
            nbytes = 2 * sum(a.nbytes for a in arrays.values()) / max(batch.size, 1)
            return int(np.clip(CHUNK_BYTES // max(nbytes, 1), 1, ALONE_SAMPLES))
        return 1

    def _one(self, batch: Batch, made: Measurements, *, alone: bool) -> None:
        exact = self._run(batch, [], self.every)
        bad = next((n for n, a in exact.items() if not np.isfinite(a).all()), None)
        if bad is not None:
            raise DataError(
                f"tensor {bad!r} takes NaN or infinity in float",
                where=self.model.name,
                hint="Look at the data, or at the float model",
            )
        rounded = self._run(batch, self.switched.all_on(), self.every)
        made.together.add(rounded, exact, self.answers)
        for i, measured in enumerate(self.layers):
            layer = measured.layer
            measured.accumulated.add(rounded[layer.output], exact[layer.output])
            for seen, activation in zip(measured.seen, layer.activations, strict=True):
                seen.add(exact[activation.tensor], batch.size, activation)
            if alone:
                wanted = list(dict.fromkeys([*self.answers, layer.output]))
                got = self._run(batch, self.switched.layer_on(i), wanted)
                measured.harm.add(got, exact, self.answers)
                measured.alone.add(got[layer.output], exact[layer.output])
                self.shifts[i].add(got[layer.output] - exact[layer.output])

    def _dissect(self, few: Sequence[Batch], ctx: Context) -> None:
        """Which kind of quantizer does the harm, in the worst layers."""
        order = sorted(range(len(self.layers)), key=lambda i: -self.layers[i].harm.relative)
        worst = [i for i in order[:DISSECTED] if len(self.layers[i].layer.kinds) > 1]
        for batch in ctx.progress.track(few, "telling causes apart", len(few)):
            exact = self._run(batch, [], self.answers)
            for i in worst:
                for kind in self.layers[i].layer.kinds:
                    answer = self.layers[i].parts.setdefault(kind, Answer())
                    answer.add(self._run(batch, [(i, kind)], self.answers), exact, self.answers)

    def _as_it_runs(self, few: Sequence[Batch], made: Measurements) -> None:
        session = build_session(self.model, SessionConfig(threads=usable_cpus()))
        for batch in few:
            exact = self._run(batch, [], self.answers)
            made.running.add(run(session, batch.feeds, self.answers), exact, self.answers)
            rounded = self._run(batch, self.switched.all_on(), self.answers)
            made.simulated.add(rounded, exact, self.answers)


class _Shift:
    """How much of an error is one number for each channel."""

    def __init__(self) -> None:
        self.sums: NDArray[np.float64] = np.zeros(())
        self.noise = 0.0
        self.count = 0

    def add(self, error: NDArray[Any]) -> None:
        channels = error.ndim - 1 if error.ndim != 4 else 1
        flat = np.moveaxis(np.atleast_2d(error), channels, -1) if error.ndim > 1 else error[None]
        flat = flat.reshape(-1, flat.shape[-1]).astype(np.float64)
        if self.count and self.sums.shape != flat.shape[1:]:
            return  # its size varies, so it has no channels
        self.sums = self.sums + flat.sum(axis=0)
        self.noise += float(np.square(flat).sum())
        self.count += len(flat)

    @property
    def part(self) -> float:
        if not self.noise:
            return 0.0
        return float(np.square(self.sums).sum() / self.count / self.noise)
