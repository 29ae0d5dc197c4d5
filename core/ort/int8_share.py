"""Share of the arithmetic that onnxruntime runs in int8.

A quantized file says little: whether a Q/DQ pair and its operator become an int8 kernel is decided
when the session is built. So the operators of the optimized graph are sorted into int8 and float
and weighted by their multiply-accumulates.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from ..errors import InputError, RunError
from ..garbage import gc_paused
from ..model import Model
from .accelerators import compiles
from .feeding import random_feeds
from .inner_shapes import inner_shapes
from .session import Feeds, SessionConfig, optimized_graph

#: Operators that multiply integers, contrib operators of onnxruntime included.
INT8_OPS = frozenset(
    {
        "ConvInteger",
        "ConvIntegerToFloat",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QConv",
        "QGemm",
        "QLinearConv",
        "QLinearConvTranspose",
        "QLinearMatMul",
        "QOrderedMatMul",
    }
)
#: Operators that multiply floats.
FLOAT_OPS = frozenset(
    {
        "Attention",
        "Conv",
        "ConvTranspose",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "FusedMatMulActivation",
        "GRU",
        "Gemm",
        "GroupQueryAttention",
        "LSTM",
        "MatMul",
        "MultiHeadAttention",
        "RNN",
        "TransposeMatMul",
    }
)
#: Operators that only convert between integers and floats.
QDQ_OPS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
#: Domain of onnxruntime's operators with blocked channels.
BLOCKED_DOMAIN = "com.microsoft.nchwc"
#: Position of the weight, or the second factor, among an operator's inputs; 1 where not listed.
_WEIGHT_INPUT = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3, "QLinearConvTranspose": 3}


@dataclass(frozen=True)
class Int8Share:
    """Share of a model's arithmetic that runs in int8.

    Attributes:
        int8_ops: number of operators of `INT8_OPS`.
        float_ops: number of operators of `FLOAT_OPS`.
        leftover_qdq: conversions between int8 and float that were not fused into a kernel.
        int8_share: share of the multiply-accumulates of one run that are in int8, 0 to 1.
        float_nodes: names of the float operators.
        ops: number of operators of the optimized graph by type.
        as_written: true where the graph of the file was counted, without loading it.
    """

    int8_ops: int
    float_ops: int
    leftover_qdq: int
    int8_share: float
    float_nodes: tuple[str, ...] = ()
    ops: Mapping[str, int] = field(default_factory=dict)
    as_written: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "int8_ops": self.int8_ops,
            "float_ops": self.float_ops,
            "leftover_qdq": self.leftover_qdq,
            "int8_share": round(self.int8_share, 4),
        }


@gc_paused()
def int8_share(
    model: Model, config: SessionConfig | None = None, feeds: Feeds | None = None
) -> Int8Share:
    """Count the operators that run in int8 and in float when onnxruntime runs `model`.

    The configuration's graph level decides what is fused. Feeds fix the shapes; where None they are
    random, of batch 1. A provider that compiles what it takes is credited with all Q/DQ pairs.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    config = (config or SessionConfig()).with_fusions_only(model)
    if compiles(config.provider):
        return written_share(model, fused=True, feeds=feeds)
    running = optimized_graph(model, config)
    counts = collections.Counter(node.op_type for node in running.graph)
    if any(node.domain == BLOCKED_DOMAIN for node in running.graph.all_nodes()):
        # The blocked layout of float convolutions hides names and true channel counts and has no
        # effect on int8: multiply-accumulates are counted without it.
        running = optimized_graph(model, config.without("NchwcTransformer"))
    integer, floating = _kinds(running)
    return Int8Share(
        int8_ops=len(integer),
        float_ops=len(floating),
        leftover_qdq=sum(counts[op] for op in QDQ_OPS),
        int8_share=_int8_part(model, running, (integer, floating), config, feeds),
        # This fusion appends its own name to that of the node that it replaces.
        float_nodes=tuple(
            (node.name or node.op_type).split("/MatmulTransposeFusion")[0] for node in floating
        ),
        ops=dict(counts),
    )


def written_share(model: Model, *, fused: bool, feeds: Feeds | None = None) -> Int8Share:
    """Count what a provider that is not installed here runs in int8, from the unoptimized graph.

    It runs a product of two DequantizeLinear in int8 where `fused`; else it runs in float, and all
    Q and DQ are left over. Feeds as in `int8_share`.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    counts = collections.Counter(node.op_type for node in model.graph)
    integer, floating = _kinds(model.ir)
    between = [node for node in floating if fused and between_qdq(node)]
    floating = [node for node in floating if node not in between]
    integer += between
    return Int8Share(
        int8_ops=len(integer),
        float_ops=len(floating),
        leftover_qdq=0 if fused else sum(counts[op] for op in QDQ_OPS),
        int8_share=_int8_part(model, model.ir, (integer, floating), SessionConfig(), feeds),
        float_nodes=tuple(node.name or node.op_type for node in floating),
        ops=dict(counts),
        as_written=True,
    )


def between_qdq(node: ir.Node) -> bool:
    """Return whether both factors of a product come from DequantizeLinear."""
    producers = [value.producer() for value in node.inputs[:2] if value is not None]
    return bool(producers) and all(p and p.op_type == "DequantizeLinear" for p in producers)


def products(running: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Return the (int8, float) multiply-accumulates of one run of an optimized graph.

    Args:
        running: as onnxruntime runs it, without the blocked layout, which hides channel counts.
        shapes: shapes of its tensors by name; an operator without all of its own counts zero.
    """
    integer, floating = _kinds(running)
    return _sum_macs(integer, shapes), _sum_macs(floating, shapes)


def _kinds(running: ir.Model) -> tuple[list[ir.Node], list[ir.Node]]:
    """Return the operators that multiply in int8, and those in float."""
    nodes = list(running.graph.all_nodes())
    return (
        [node for node in nodes if node.op_type in INT8_OPS],
        [node for node in nodes if node.op_type in FLOAT_OPS],
    )


def _int8_part(
    model: Model,
    running: ir.Model,
    kinds: tuple[Sequence[ir.Node], Sequence[ir.Node]],
    config: SessionConfig,
    feeds: Feeds | None,
) -> float:
    """Return the share of the first kind in the multiply-accumulates; runs only where both occur.

    The nodes are those of `running`, the graph that onnxruntime runs of the model.
    """
    integer, floating = kinds
    if not integer or not floating:
        return float(bool(integer))
    try:
        fed = feeds if feeds is not None else random_feeds(model)
    except (InputError, RunError):
        fed = {}  # it runs at no size that is known: counts of operators remain
    shapes = _shapes(replace(model, ir=running), [*integer, *floating], config, fed)
    mine, others = _sum_macs(integer, shapes), _sum_macs(floating, shapes)
    return mine / (mine + others) if mine + others else 0.0


def _sum_macs(nodes: Iterable[ir.Node], shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(macs_of(node, shapes) for node in nodes)


def _shapes(
    running: Model, nodes: Iterable[ir.Node], config: SessionConfig, feeds: Feeds
) -> dict[str, tuple[int, ...]]:
    """Return the concrete shapes of the nodes' inputs and outputs, by one run of the graph."""
    known: dict[str, tuple[int, ...]] = {}
    wanted: list[str] = []
    for node in nodes:
        for value in (*node.inputs, *node.outputs[:1]):
            if value is None or not value.name:
                continue
            if value.const_value is not None:
                known[value.name] = tuple(value.const_value.shape.numpy())
            elif value.graph is running.graph and not value.is_graph_input():
                wanted.append(value.name)
    known |= {name: np.shape(array) for name, array in feeds.items()}
    if not wanted or not feeds:
        return known
    # A provider may refuse to load its own optimized graph: counts of operators remain.
    with contextlib.suppress(RunError):
        known |= inner_shapes(running, wanted, feeds, replace(config, level="off"))
    return known


def macs_of(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the multiply-accumulates of one operator; 0 where its shapes are not known."""
    weight = _shape_of(node, _WEIGHT_INPUT.get(node.op_type, 1), shapes)
    out = shapes.get(node.outputs[0].name or "")
    data = _shape_of(node, 0, shapes)
    if out is None or weight is None or data is None or not data:
        return 0
    if node.op_type in {"ConvTranspose", "QLinearConvTranspose"}:  # weight: (in, out / group, k...)
        return int(np.prod(data)) * int(np.prod(weight[1:]))
    if "Conv" in node.op_type:  # weight: (out, in / group, k...)
        return int(np.prod(out)) * int(np.prod(weight[1:]))
    if node.op_type in {"Attention", "QAttention"}:  # its products with the weight alone
        return int(np.prod(data)) * int(weight[-1])
    transposed = node.attributes.get_int("transA", 0) == 1
    depth = data[0] if transposed and len(data) == 2 else data[-1]
    return int(np.prod(out)) * int(depth)


def _shape_of(
    node: ir.Node, index: int, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...] | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None else shapes.get(value.name or "")
