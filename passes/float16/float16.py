"""Float16 for GPUs, with float32 where float16 would overflow or cause too much error."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.graphs import subgraphs_of
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session

from ..base import Pass, Rewrite
from ..calibration.collector import calibrate
from ..calibration.statistics import Statistics
from ..graph.declined import Declined
from ..graph.forms.float16_form import (
    LARGEST_FLOAT16,
    Converter,
    computes_float32,
    drop_productless_groups,
    float32_reason,
)
from ..graph.forms.float32_form import has_products_of, to_float32
from ..graph.patterns import match_nodes
from ..graph.quantized import prepare_float
from ..graph.queries import is_float
from ..graph.shapes import infer_shapes
from ..graph.stored.weights import float_elements
from .error import Float16Trials

#: Reasons to stay float32, by the name of the node.
Reasons = dict[str, str]
#: Operators that stay float32 without data: those that sum many values, or grow fast.
UNSAFE = frozenset(
    {
        "CumSum",
        "Exp",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LogSoftmax",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
        "Softplus",
        "Sqrt",
    }
)
#: Margin between the values of the data and the largest float16, since other data may exceed them.
MARGIN = 4.0


@dataclass(frozen=True)
class Half(Pass):
    """Convert float32 to float16, for GPUs, with float32 islands where the error is too large.

    With data, nodes whose values come near 65504 stay float32, and of the others those that lose
    most, as few as the allowed error permits. Without data, operators in a table of sums and
    exponentials do; inside of branches and loops, whose values are not measured, they always do.
    Inputs and outputs keep their types, those of branches and loops too.

    Attributes:
        data: samples to measure on; that of the run if not given, a table of operators without any.
        samples: number of samples.
        max_error: allowed relative RMS error of the outputs.
        exclude: nodes to leave float32, by name or glob pattern.
    """

    data: Dataset | None = None
    samples: int = 16
    max_error: float = 0.01
    exclude: tuple[str, ...] = ()

    needs_data: ClassVar[bool] = False
    shrinks: ClassVar[bool] = True
    layers_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise OptionError("must be at least 1", where=f"samples={self.samples}")
        if not self.max_error > 0:
            raise OptionError("must be above 0", where=f"max_error={self.max_error}")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Choose the float32 islands and convert the rest."""
        prepare_float(model)
        infer_shapes(model.ir)
        if has_products_of(model.graph, ir.DataType.DOUBLE):
            to_float32(model.ir, ir.DataType.DOUBLE)
        reasons = self._fixed(model)
        report: dict[str, Any] = {}
        if self.data is not None or ctx.data is not None:
            data = ctx.dataset(self.data, model, purpose="float16").take(self.samples)
            inside = "may overflow inside of a subgraph, whose values are not measured"
            for node in model.graph:
                for graph in subgraphs_of(node):
                    _keep_unsafe(graph.all_nodes(), reasons, inside)
            reasons |= _overflowing(model, reasons, data, ctx)
            batches = list(fitting(model, data, rows=8))
            reasons |= self._too_costly(model, reasons, batches, report)
        else:
            _keep_unsafe(model.nodes(), reasons, "may overflow; no data were given to measure it")
        half = _half(model, reasons)
        report["half"] = len(half)
        report["casts"] = Converter(model.graph, half, model.opset).convert()
        model.graph.sort()
        report["float32_weights"] = _float32_share(model)
        build_session(dataclasses.replace(model))  # an error here is better than on the board
        return Rewrite(model.ir, [Declined(n, why) for n, why in reasons.items()], report)

    def _fixed(self, model: Model) -> Reasons:
        """Return the nodes that cannot or must not be float16, with the reason."""
        reasons = dict.fromkeys(match_nodes(self.exclude, model.graph), "excluded by the user")
        for node in model.nodes():
            why = float32_reason(node, model.opset)
            if why is not None:
                reasons.setdefault(node.name or "", why)
        return reasons

    def _too_costly(
        self, model: Model, reasons: Reasons, batches: Sequence[Batch], report: dict[str, Any]
    ) -> Reasons:
        """Find the fewest of the most sensitive nodes that have to stay float32."""
        half = _half(model, reasons)
        names = [node.name or "" for node in model.nodes() if node in half]
        trials = Float16Trials(model, batches)
        first = trials.errors(set(names))
        curve = [{"islands": 0, "relative_rms_error": _short(first.output)}]
        report |= {"relative_rms_error_without_islands": _short(first.output), "curve": curve}
        low, high, error = 0, 0, first.output
        order = _by_own_error(model, names, first.nodes)
        if first.output > self.max_error:
            low, high, error = 0, len(order), 0.0
            while high - low > 1:
                middle = (low + high) // 2
                left = set(names) - set(order[:middle])
                got = trials.error(left)
                curve.append({"islands": middle, "relative_rms_error": _short(got)})
                low, high = (low, middle) if got <= self.max_error else (middle, high)
                error = got if high == middle else error
        report["relative_rms_error"] = _short(error)
        why = "float16 causes too much error here (relative RMS error of its output {:.2g})"
        return {name: why.format(first.nodes.get(name, np.inf)) for name in order[:high]}


def _half(model: Model, reasons: Reasons) -> set[ir.Node]:
    return drop_productless_groups(
        {node for node in model.nodes() if computes_float32(node) and node.name not in reasons}
    )


def _keep_unsafe(nodes: Iterable[ir.Node], reasons: Reasons, why: str) -> None:
    """Keep the operators of the table float32, in place."""
    for node in nodes:
        if node.op_type in UNSAFE and computes_float32(node):
            reasons.setdefault(node.name or "", why)


def _float32_share(model: Model) -> float:
    """Return the share of the weights that is float32 still, by elements."""
    counts = float_elements(model.ir)
    total = counts.total()
    return round(counts[ir.DataType.FLOAT] / total, 4) if total else 0.0


def _by_own_error(model: Model, names: Sequence[str], errors: Mapping[str, float]) -> list[str]:
    """Sort nodes by the error that their output adds to that of their inputs, the worst first.

    Those of subgraphs come last: their own error is not measured, only that of the whole model.
    """
    wanted = set(names)
    errors_by_value: dict[ir.Value, float] = {}
    own: dict[str, float] = {}
    for node in model.graph:
        name = node.name or ""
        if name not in wanted:
            continue
        read = [errors_by_value.get(v, 0.0) for v in node.inputs if v is not None]
        before = max(read, default=0.0)
        error = errors.get(name, 0.0)
        errors_by_value |= dict.fromkeys(node.outputs, error)
        own[name] = error - before if np.isfinite(error) else (np.inf if np.isfinite(before) else 0)
    return sorted(names, key=lambda name: -own.get(name, -np.inf))


def _overflowing(model: Model, reasons: Reasons, data: Dataset, ctx: Context) -> Reasons:
    """Find nodes that make or read values near the limit of float16."""
    nodes = [node for node in model.graph if computes_float32(node) and node.name not in reasons]
    tensors = dict.fromkeys(
        v.name or ""
        for node in nodes
        for v in (*node.inputs, *node.outputs)
        if v is not None and is_float(v) and v.const_value is None and v.name
    )
    statistics = calibrate(model, list(tensors), data, ctx) if tensors else {}
    found: Reasons = {}
    for node in nodes:
        values = [v.name or "" for v in (*node.inputs, *node.outputs) if v is not None]
        seen = [statistics[name] for name in values if name in statistics]
        largest = max(map(_magnitude, seen), default=0.0)
        if largest > LARGEST_FLOAT16 / MARGIN:
            found[node.name or ""] = (
                f"values reach {largest:.3g}, and float16 ends at {LARGEST_FLOAT16:.0f}"
            )
    return found


def _magnitude(statistics: Statistics) -> float:
    return max(-statistics.lowest, statistics.highest) if statistics.rows else 0.0


def _short(number: float) -> float | None:
    return float(f"{number:.3g}") if np.isfinite(number) else None
