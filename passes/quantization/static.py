"""Static int8: ranges from calibration data, Q/DQ pairs around all operators with int8 kernels."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import onnx_ir as ir

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError, PassError
from trimtab.core.fields import File
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import Int8Share
from trimtab.core.ort.overflow import find_overflows
from trimtab.core.target import Target
from trimtab.core.text import counted

from ..base import Rewrite
from ..calibration.collector import calibrate
from ..calibration.concat_ranges import share_ranges
from ..calibration.range_estimator import Method, Range, find_range
from ..calibration.statistics import Statistics, unbounded_nodes
from ..calibration.statistics_file import load_statistics, save_statistics
from ..calibration.tensor_methods import parse_tensor_ranges, range_methods
from ..graph.declined import Declined
from ..graph.patterns import match_nodes, match_tensors
from ..graph.queries import in_subgraphs
from ..graph.stored.weight_scales import clip_weights
from .hold_out import hold_out
from .int8_share import float_reasons, measure_int8_share
from .limits import check_limits
from .mixed_precision import choose_float_nodes
from .qdq.fill_channels import fill_input_channels
from .qdq.float_ends import float_ends
from .qdq.float_nodes import (
    adjacent_tensors,
    average_pool_outputs,
    quantizable_nodes,
    quantize_except,
    tensors_around_joins,
    uneven_joins,
    with_moved_tensors,
)
from .qdq.int8_operators import PRODUCTS, int8_operators, unsupported_nodes
from .qdq.int8_rewrites import apply_int8_rewrites
from .qdq.ort_backend import METHODS, quantize_with_onnxruntime
from .qdq.prepare import prepare
from .qdq.roles import FLOATS, element_type
from .qdq.writer import Scheme, observed_tensors, quantize_graph
from .quantizer import Quantizer

#: Fewer samples than this cause a message to the user.
FEW_SAMPLES = 8
#: Samples on which overflow of pair sums is searched.
OVERFLOW_SAMPLES = 32


@dataclass(frozen=True)
class QuantizeStatic(Quantizer):
    """Quantize weights and activations to int8, with ranges from calibration data.

    Attributes:
        data: calibration data; that of the run if not given.
        samples: number of samples to calibrate on, evenly spaced over the data.
        ranges: method that finds ranges of activations; mse searches the least squared error.
        percentile: part of the values, in percent, that `ranges=percentile` keeps.
        tensor_ranges: methods of single tensors instead of `ranges`, by name or glob pattern, as
            conv1_out=minmax.
        per_channel: one scale for each output channel of a weight.
        scales: method that finds scales of weights; mse searches the least squared error.
        activation: integer type of activations; the target's if not given.
        weight: integer type of weights; the target's if not given.
        exclude: nodes to leave float, by name or glob pattern.
        wide: activations of 16 bits, by name or glob pattern, where the target has such kernels;
            max_drop widens inputs and outputs of layers there before it leaves a layer float.
        statistics: file (.npz) to keep calibration statistics in; read where it exists already.
        max_drop: allowed drop of the metric (of several by name: map=0.01), in its own unit, on
            held-out samples: layers that cost more stay float, of fidelity also those that int8
            makes slower; nothing is evaluated if not given.
        metric: metric of max_drop: a name or module:callable; if not given, top1 where the data
            have labels, else fidelity to the float model.
        min_share: part of the multiply-accumulates, 0 to 1, that must run in int8; otherwise an
            error names the operators that run in float, with reasons.
        check_overflow: report the layers that would saturate on x64 without VNNI, and by how much,
            even where the target has it.
        all_int8: run in int8 what stays float by rule, too: what follows the last layers, scaling
            of the input, spectra.
        closest: keep the least drop where max_drop cannot be held, instead of an error.
        backend: who writes the int8 graph: trimtab, or onnxruntime's own quantizer, which
            calibrates by itself and has no 16-bit activations, max_drop or statistics.
    """

    needs_data: ClassVar[bool] = True
    shrinks: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    keeps_bits: ClassVar[bool] = True

    data: Dataset | None = None
    samples: int = 256
    ranges: Method = "mse"
    percentile: float = 99.99
    tensor_ranges: tuple[str, ...] = ()
    per_channel: bool = True
    scales: Literal["absmax", "mse"] = "absmax"
    activation: Literal["int8", "uint8"] | None = None
    weight: Literal["int8", "uint8"] | None = None
    exclude: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()
    statistics: File = ""
    max_drop: float | dict[str, float] | None = None
    metric: str = ""
    min_share: float = 0.0
    check_overflow: bool = False
    all_int8: bool = False
    closest: bool = False
    backend: Literal["trimtab", "onnxruntime"] = "trimtab"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise OptionError("must be at least 1", where=f"samples={self.samples}")
        if not 50 < self.percentile <= 100:
            raise OptionError("must lie between 50 and 100", where=f"percentile={self.percentile}")
        parse_tensor_ranges(self.tensor_ranges)
        check_limits(self.max_drop)
        if not 0 <= self.min_share <= 1:
            raise OptionError("must lie between 0 and 1", where=f"min_share={self.min_share}")
        own = ("wide", "tensor_ranges", "statistics", "max_drop")
        given = {name: getattr(self, name) for name in own}
        others = [name for name, value in given.items() if value not in ((), "", None)]
        if self.backend == "onnxruntime" and others:
            raise OptionError(
                "is not offered by onnxruntime's quantizer",
                where=others[0],
                hint="Leave it out, or use the backend trimtab",
            )

    def decides_by_time(self) -> bool:
        """Return true where what layers gain is timed, to choose those that stay float."""
        return self.max_drop is not None

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Calibrate, write the Q/DQ graph, measure what runs in int8."""
        prepare(model)
        rewrites = apply_int8_rewrites(model)
        all_data = ctx.dataset(self.data, model, purpose="static quantization")
        data, held_out = self._split(all_data)
        scheme, declined = self._scheme(model, ctx.target)
        tensors = observed_tensors(model, scheme)
        if not tensors:
            raise DataError(
                "has nothing to quantize",
                where=model.name,
                hint=_why_nothing(model.graph, declined),
            )
        report: dict[str, Any] = {"samples": len(data), "data": data.digest, "forms": rewrites}
        report |= {name: getattr(scheme, name) for name in ("activation", "weight", "reduce_range")}
        if self.backend == "onnxruntime":
            return self._by_onnxruntime(model, scheme, data, declined, report, ctx)
        scheme = dataclasses.replace(scheme, wide=match_tensors(self.wide, tensors, ctx.target))
        tensors += tensors_around_joins(model, scheme)
        if self.max_drop is not None or self.statistics:
            tensors += average_pool_outputs(model.graph)
        tensors = list(dict.fromkeys(tensors))
        statistics = self._statistics(model, tensors, data, ctx)
        scheme, ranges, without = self._ranges(model, scheme, statistics)
        declined += without
        written, float_nodes, notes = self._quantize(model, scheme, ranges, (data, held_out), ctx)
        if ctx.target.fills_channels and (scheme.activation, scheme.weight) == ("uint8", "int8"):
            filled = fill_input_channels(written.graph)
            report["forms"] = rewrites | ({"channels-filled": filled} if filled else {})
        slower = notes.get("mixed", {}).get("slower", [])
        declined += [Declined(node, "int8 makes it slower") for node in slower]
        costly = [node for node in float_nodes if node not in set(slower)]
        declined += [Declined(node, "int8 would cost the metric too much") for node in costly]
        share = measure_int8_share(written, model, ctx.target)
        report |= notes | share.to_json()
        report["float_nodes"] = float_reasons(share, declined)
        if self.check_overflow or (ctx.target.isa in {"x64", "any"} and not ctx.target.vnni):
            samples = fitting(model, data.take(OVERFLOW_SAMPLES))
            overflows = find_overflows(dataclasses.replace(model, ir=written), samples)
            report["overflow"] = [overflow.to_json() for overflow in overflows]
        self._check_share(share, report["float_nodes"], model)
        return Rewrite(written, declined, report, loaded=not share.as_written)

    def _ranges(
        self, model: Model, scheme: Scheme, statistics: Mapping[str, Statistics]
    ) -> tuple[Scheme, Mapping[str, Range], list[Declined]]:
        """Return the scheme without the nodes that no range fits, the ranges, and those nodes."""
        masked = [node.name or "" for node in unbounded_nodes(model.graph, statistics)]
        emptied = _emptied_nodes(model.graph, statistics)
        scheme = dataclasses.replace(scheme, exclude=[*scheme.exclude, *masked, *emptied])
        methods = range_methods(list(statistics), self.ranges, self.tensor_ranges)
        ranges = {
            name: find_range(of, methods[name], percentile=self.percentile)
            for name, of in statistics.items()
        }
        uneven = uneven_joins(model.graph, scheme, ranges)
        scheme = dataclasses.replace(scheme, exclude=[*scheme.exclude, *uneven])
        ranges = share_ranges(model.graph, ranges, set(scheme.exclude))
        if uneven or any(of.empty for of in statistics.values()):  # further nodes stay float
            ranges = with_moved_tensors(model.graph, ranges)
        reasons = {
            "takes infinity by design, as a mask": masked,
            "its tensors have no elements for a sample": emptied,
            "one scale for all of its inputs would lose the smallest": uneven,
        }
        return scheme, ranges, [Declined(n, why) for why, nodes in reasons.items() for n in nodes]

    def _by_onnxruntime(
        self,
        model: Model,
        scheme: Scheme,
        data: Dataset,
        declined: Sequence[Declined],
        report: Mapping[str, Any],
        ctx: Context,
    ) -> Rewrite:
        """Return what onnxruntime's own quantizer makes of the model."""
        written = quantize_with_onnxruntime(
            model, scheme, data, method=self.ranges, percentile=self.percentile
        )
        share = measure_int8_share(written, model, ctx.target)
        reasons = float_reasons(share, declined)
        self._check_share(share, reasons, model)
        notes = {"ranges": METHODS.get(self.ranges, "MinMax"), "float_nodes": reasons}
        return Rewrite(
            written, declined, {**report, **share.to_json(), **notes}, loaded=not share.as_written
        )

    def _split(self, all_data: Dataset) -> tuple[Dataset, Dataset]:
        """Return samples to make ranges from, and those that `max_drop` is evaluated on."""
        if self.max_drop is None:
            return all_data.take(self.samples), all_data
        return hold_out(all_data, self.samples)

    def _quantize(
        self,
        model: Model,
        scheme: Scheme,
        ranges: Mapping[str, Range],
        samples: tuple[Dataset, Dataset],
        ctx: Context,
    ) -> tuple[ir.Model, list[str], dict[str, Any]]:
        """Return the Q/DQ graph, the nodes left float for the metric's sake, and notes on that."""
        plain = model.clone() if self.max_drop is not None else model
        if self.scales == "mse":
            largest = 64 if scheme.reduce_range else 127
            clip_weights(model.graph, scheme.exclude, per_channel=self.per_channel, largest=largest)
        max_drop = self.max_drop
        if max_drop is None:
            return quantize_graph(model, scheme, ranges), [], {}
        ranges = with_moved_tensors(model.graph, ranges)

        def write(float_nodes: Sequence[str]) -> ir.Model:
            return quantize_except(model, plain, scheme, ranges, float_nodes)

        def wide(sensitive: Sequence[str]) -> list[str]:
            return [*scheme.wide, *adjacent_tensors(model.graph, sensitive, list(ranges))]

        def widen(sensitive: Sequence[str]) -> ir.Model:
            return quantize_graph(model, dataclasses.replace(scheme, wide=wide(sensitive)), ranges)

        nodes = quantizable_nodes(model.graph, scheme)
        choose = partial(
            choose_float_nodes,
            plain,
            nodes,
            samples,
            max_drop,
            ctx,
            self.metric,
            closest=self.closest,
        )
        if ctx.target.int16_activations:
            with contextlib.suppress(PassError):  # 16 bits do not suffice: layers stay float
                chosen = choose(write=widen, by_clock=False)
                notes = chosen.to_json() | {"float": [], "wide": wide(chosen.float_nodes)}
                return widen(chosen.float_nodes), [], {"mixed": notes}
        chosen = choose(write=write)
        return write(chosen.float_nodes), chosen.float_nodes, {"mixed": chosen.to_json()}

    def _check_share(
        self, share: Int8Share, float_nodes: Sequence[Sequence[str]], model: Model
    ) -> None:
        if share.int8_share >= self.min_share:
            return
        shown = "; ".join(f"{node}: {reason}" for node, reason in float_nodes[:5])
        raise PassError(
            f"{share.int8_share:.0%} of the multiply-accumulates run in int8, "
            f"{self.min_share:.0%} are required",
            where=model.name,
            hint=f"{len(float_nodes)} operators run in float: {shown}",
        )

    def _statistics(
        self, model: Model, tensors: list[str], data: Dataset, ctx: Context
    ) -> dict[str, Statistics]:
        path = Path(self.statistics) if self.statistics else None
        if path is not None and path.exists():
            found = load_statistics(path, model, data)
            if set(tensors) <= set(found):
                return found
        if len(data) < FEW_SAMPLES and not data.source.batched:
            few = counted(len(data), "sample")
            ctx.progress.say(f"Only {few} to calibrate on: ranges may be too narrow")
        found = calibrate(model, tensors, data, ctx)
        if path is not None:
            save_statistics(path, found, model, data)
        return found

    def _scheme(self, model: Model, target: Target) -> tuple[Scheme, list[Declined]]:
        ops = int8_operators(target, model.graph)
        chosen = match_nodes(self.exclude, model.graph)
        declined = [Declined(name, "excluded by the user") for name in chosen]
        others = [*unsupported_nodes(model.graph, ops)]
        others += [] if self.all_int8 or target.isa == "gpu" else float_ends(model.graph)
        others += [(node, "is inside a subgraph") for node in in_subgraphs(model.graph, PRODUCTS)]
        declined += [Declined(node.name or "", why) for node, why in others]
        scheme = Scheme(
            activation=self.activation or target.activation,
            weight=self.weight or target.weight,
            per_channel=self.per_channel,
            reduce_range=target.reduce_range,
            symmetric=target.symmetric_activations,
            ops=ops,
            exclude=[d.node for d in declined],
            inputs_only=target.isa == "gpu",
            power_of_two=target.power_of_two_scales,
        )
        return scheme, declined


def _why_nothing(graph: ir.Graph, declined: Sequence[Declined]) -> str:
    """Return why no node can be quantized: the first layer's reason, or that there is no layer."""
    layers = [node for node in graph.all_nodes() if node.op_type in PRODUCTS]
    names = {node.name for node in layers}
    reasons = [f"{d.node!r} stays float: {d.reason}" for d in declined if d.node in names]
    if reasons:
        return reasons[0]
    others = {kind for node in layers for kind in map(_kind, node.inputs[:2])} - {None, *FLOATS}
    if others:
        found = ", ".join(sorted(kind.name.lower() for kind in others if kind is not None))
        return f"Its layers compute in {found}; convert the model to float32 first"
    return "It contains none of: " + ", ".join(sorted(PRODUCTS))


def _kind(value: ir.Value | None) -> ir.DataType | None:
    return None if value is None else element_type(value)


def _emptied_nodes(graph: ir.Graph, statistics: Mapping[str, Statistics]) -> list[str]:
    """List sums and products, element by element, of tensors that have no elements for a sample.

    onnxruntime's QLinearAdd and QLinearMul end the process on those where it has two threads.
    """
    empty = {name for name, of in statistics.items() if of.empty}
    sums = [node for node in graph if node.op_type in {"Add", "Mul"}]
    return [
        node.name or ""
        for node in sums
        if any(v is not None and v.name in empty for v in (*node.inputs, *node.outputs))
    ]
