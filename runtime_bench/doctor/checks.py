"""The finders other than float islands: what else costs time or memory in a running graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from trimtab.core.graphs import constant_of
from trimtab.core.ort.int8_share import FLOAT_OPS, QDQ_OPS

from .findings import Finder, Finding, GraphFacts
from .graph import REORDERS, dequantized_by, is_constant, makes_int8
from .islands import BATCH_NORM, CONSTANT, REQUANTIZE, find_islands

#: Layout changes that a graph needs: one after its input, one before its output.
NEEDED_CHANGES = 2
#: Operators that take any layout, and change it only because of their neighbours.
FOLLOWERS = frozenset({"Add", "Clip", "Concat", "Mul", "Relu", "Sigmoid", "Sum"})
#: Largest part of a kernel's block that may stay empty.
WASTE = 0.10
#: Convolutions below this part of the time are not reported.
LEAST_TIME = 0.01


def find_no_int8(facts: GraphFacts) -> Iterator[Finding]:
    """Find models without any int8."""
    if not facts.is_quantized and facts.share.float_ops:
        yield Finding(
            "float-model",
            "note",
            (),
            "all arithmetic is float",
            "`trimtab quantize MODEL -o OUT --data DATA`, or `trimtab optimize`, may make it "
            "smaller and faster",
        )


def find_constants(facts: GraphFacts) -> Iterator[Finding]:
    """Find float weights that are quantized in each run."""
    nodes = [
        node
        for node in facts.model.graph
        if node.op_type == "QuantizeLinear" and is_constant(node.inputs[0])
    ]
    if nodes:
        size = sum(t.nbytes for n in nodes if (t := constant_of(n.inputs[0])) is not None)
        why = f"{CONSTANT.why}; {size} bytes of float weights"
        yield Finding(
            "constant-weight", "costs", facts.names_of(nodes), why, CONSTANT.fix, CONSTANT.name
        )


def find_batch_norms(facts: GraphFacts) -> Iterator[Finding]:
    """Find BatchNormalization nodes that onnxruntime did not fold, outside of islands."""
    inside = {node for island in facts.islands if island.between for node in island.nodes}
    nodes = [n for n in facts.running if n.op_type == "BatchNormalization" and n not in inside]
    if nodes:
        yield Finding(
            "batch-norm",
            "costs",
            facts.names_of(nodes),
            BATCH_NORM.why,
            BATCH_NORM.fix,
            BATCH_NORM.name,
            facts.time_of(nodes),
        )


def find_weight_only(facts: GraphFacts) -> Iterator[Finding]:
    """Find weights that are stored in int8, dequantized in each run, and multiplied in float."""
    nodes = [
        node
        for node in facts.running
        if node.op_type in FLOAT_OPS
        and len(node.inputs) > 1
        and _from_int8_weight(node.inputs[1])
        and dequantized_by(node.inputs[0]) is None
    ]
    if nodes:
        yield Finding(
            "weight-only",
            "note",
            facts.names_of(nodes),
            "weights are int8 in the file, but are dequantized in each run and multiplied in "
            "float: the file is small, the model is not faster",
            f"for speed, {REQUANTIZE}",
            time_share=facts.time_of(nodes),
        )


def _from_int8_weight(value: ir.Value | None) -> bool:
    conversion = dequantized_by(value)
    return conversion is not None and is_constant(conversion.inputs[0])


def find_leftovers(facts: GraphFacts) -> Iterator[Finding]:
    """Find conversions that are neither at the graph's ends nor at the border of an island."""
    borders = {c for i in facts.islands if i.touches_int8 for c in (*i.enters, *i.leaves)}
    nodes = [
        node
        for node in facts.running
        if node.op_type in QDQ_OPS - {"DynamicQuantizeLinear"}
        and node not in borders
        and not is_constant(node.inputs[0])
        and not _at_an_end(node)
    ]
    if nodes:
        yield Finding(
            "leftover-qdq",
            "costs",
            facts.names_of(nodes),
            "conversions between int8 and float that no kernel absorbed and that feed no float "
            "node: one scale follows another",
            REQUANTIZE,
            time_share=facts.time_of(nodes),
        )


def _at_an_end(node: ir.Node) -> bool:
    """Return whether a node quantizes a graph input or dequantizes an output, layouts aside."""
    before = node.inputs[0]
    while before is not None and (producer := before.producer()) is not None:
        if producer.op_type not in {"Transpose", "Reshape", *REORDERS}:
            break
        before = producer.inputs[0]
    from_input = before is not None and before.is_graph_input()
    return from_input or any(v.is_graph_output() for v in node.outputs)


def find_layout(facts: GraphFacts) -> Iterator[Finding]:
    """Find layout changes that onnxruntime inserted beyond one in and one out."""
    nodes = [
        node
        for node in facts.running
        if node.op_type in REORDERS
        or (node.op_type == "Transpose" and facts.origin_of(node) is None)
    ]
    if len(nodes) <= NEEDED_CHANGES:
        return
    beside = _neighbours(nodes)
    islands = any(island.between for island in facts.islands)
    fix = (
        "fix the float islands first: each int8 convolution among them changes layout twice"
        if islands
        else f"these operators keep to one layout: {', '.join(beside)}; replace or move them"
    )
    yield Finding(
        "layout",
        "costs",
        # onnxruntime inserts and numbers them in a different order in each process.
        tuple(sorted(n.name or n.op_type for n in nodes)),
        f"{len(nodes)} changes between layouts of tensors, {NEEDED_CHANGES} are enough; "
        f"they are beside {', '.join(beside) or 'each other'}",
        fix,
        time_share=facts.time_of(nodes),
    )


def _neighbours(nodes: Iterable[ir.Node]) -> list[str]:
    """Find operators beside layout changes; those that take any layout only without others."""
    found: set[str] = set()
    for node in nodes:
        around = [v.producer() for v in node.inputs[:1] if v is not None]
        around += [usage.node for usage in node.outputs[0].uses()]
        for other in around:
            layout_aware = other is None or "Conv" in other.op_type or "Pool" in other.op_type
            if other is not None and not layout_aware and other.op_type not in REORDERS:
                found.add(other.op_type)
    stubborn = sorted(op for op in found if op not in FOLLOWERS)
    return (stubborn or sorted(found))[:6]


def find_fallback(facts: GraphFacts) -> Iterator[Finding]:
    """Find nodes that run on a provider other than the requested one."""
    if not facts.fallback:
        return
    ops = sorted({op for _, op in facts.fallback})
    products = any(op in FLOAT_OPS for op in ops)
    yield Finding(
        "fallback",
        "costs" if products else "note",
        tuple(name or f"({op})" for name, op in facts.fallback),
        f"{facts.target.provider} has no kernel for them, so they run on the CPU and their tensors "
        f"are copied there and back: {', '.join(ops)}",
        "replace these operators, or raise the opset; `trimtab simplify` removes some",
        time_share=None,
    )


def find_channels(facts: GraphFacts) -> Iterator[Finding]:
    """Find convolutions whose channels do not fill the kernel's block."""
    target, known = facts.target, facts.times.by_name if facts.times else None
    wasted: list[tuple[float, str, ir.Node]] = []
    for node in facts.running:
        source = facts.origin_of(node)
        if source is None or source.op_type != "Conv" or "Conv" not in node.op_type:
            continue
        channels = _out_channels(source)
        block = target.int8_block if makes_int8(node) else target.float_block
        if not channels or (known is not None and known.get(node.name or "", 0) < LEAST_TIME):
            continue
        waste = 1 - channels / (math.ceil(channels / block) * block)
        if waste > WASTE:
            wasted.append((waste, f"{channels} channels in blocks of {block}", node))
    if wasted:
        nodes, worst = [node for _, _, node in wasted], max(waste for waste, _, _ in wasted)
        counts = ", ".join(dict.fromkeys(text for _, text, _ in wasted))
        yield Finding(
            "channels",
            "note",
            facts.names_of(nodes),
            f"kernels work on whole blocks of channels, and up to {worst:.0%} of a block is empty "
            f"here: {counts}",
            "choose channel counts that are multiples of the block; when pruning channels too",
            time_share=facts.time_of(nodes),
        )


def _out_channels(conv: ir.Node) -> int | None:
    """Return the output channels of a Conv of the model, its weight float or dequantized."""
    value = conv.inputs[1] if len(conv.inputs) > 1 else None
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type not in {"DequantizeLinear", "QuantizeLinear"}:
            break
        value = producer.inputs[0]
    tensor = constant_of(value)
    return int(tensor.shape[0]) if tensor is not None else None  # type: ignore[arg-type]


def find_denormals(facts: GraphFacts) -> Iterator[Finding]:
    """Find weights so small that x64 computes many times slower with them."""
    tiny = np.finfo(np.float32).tiny
    found: dict[str, int] = {}
    for name, value in facts.model.graph.initializers.items():
        if value.const_value is None or value.const_value.dtype != ir.DataType.FLOAT:
            continue
        array = value.const_value.numpy()
        count = int(np.count_nonzero((np.abs(array) < tiny) & (array != 0)))
        if count:
            found[name] = count
    if found:
        yield Finding(
            "denormals",
            "costs",
            tuple(found),
            f"{sum(found.values())} weights are denormal (below {tiny:.2g}), on which x64 "
            "arithmetic takes many times as long",
            "set them to zero, as `trimtab prune` does, or deploy with the session option "
            "session.set_denormal_as_zero=1",
        )


FINDERS: tuple[Finder, ...] = (
    find_islands,
    find_constants,
    find_batch_norms,
    find_leftovers,
    find_layout,
    find_fallback,
    find_denormals,
    find_weight_only,
    find_channels,
    find_no_int8,
)
