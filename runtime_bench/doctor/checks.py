"""The finders beside float islands: what else costs time or memory in a running graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx_ir as ir

from trimtab.core.ort.int8_share import FLOAT_OPS, QDQ_OPS

from .diagnose import Facts, Finding
from .graph import REORDERS, constant_of, is_constant, makes_int8
from .islands import BATCH_NORM, CONSTANT, REQUANTIZE, find_islands

#: Layout changes that a graph needs: one after its input, one before its output.
NEEDED_CHANGES = 2
#: Operators that take any layout, and change it only because of what stands beside them.
FOLLOWERS = frozenset({"Add", "Clip", "Concat", "Mul", "Relu", "Sigmoid", "Sum"})
#: Part of a kernel's block that may stay empty.
WASTE = 0.10
#: Convolutions below this part of the time are not worth a word.
LEAST_TIME = 0.01


def find_no_int8(facts: Facts) -> Iterator[Finding]:
    """Nothing at all is int8."""
    if not facts.is_quantized and facts.share.float_ops:
        yield Finding(
            "float-model",
            "note",
            (),
            "all arithmetic is float",
            "`trimtab quantize MODEL -o OUT --data DATA`, or `trimtab optimize`, may make it "
            "smaller and faster",
        )


def find_constants(facts: Facts) -> Iterator[Finding]:
    """Weights that are quantized anew, in graphs where no island told of them."""
    nodes = [
        node
        for node in facts.model.graph
        if node.op_type == "QuantizeLinear" and is_constant(node.inputs[0])
    ]
    if nodes:
        size = sum(t.nbytes for n in nodes if (t := constant_of(n.inputs[0])) is not None)
        why = f"{CONSTANT.why}; {size} bytes of float weights"
        yield Finding(
            "constant-weight", "costs", facts.names_of(nodes), why, CONSTANT.mend, CONSTANT.name
        )


def find_batch_norms(facts: Facts) -> Iterator[Finding]:
    """BatchNormalization that onnxruntime did not fold, outside of islands."""
    inside = {node for island in facts.islands if island.between for node in island.nodes}
    nodes = [n for n in facts.running if n.op_type == "BatchNormalization" and n not in inside]
    if nodes:
        yield Finding(
            "batch-norm",
            "costs",
            facts.names_of(nodes),
            BATCH_NORM.why,
            BATCH_NORM.mend,
            BATCH_NORM.name,
            facts.time_of(nodes),
        )


def find_weight_only(facts: Facts) -> Iterator[Finding]:
    """Weights stored in int8, made float again in each run, and multiplied in float."""
    nodes = [
        node
        for node in facts.running
        if node.op_type in FLOAT_OPS
        and len(node.inputs) > 1
        and _from_int8_weight(node.inputs[1])
        and not _takes_int8(node)
    ]
    if nodes:
        yield Finding(
            "weight-only",
            "note",
            facts.names_of(nodes),
            "weights are int8 in the file, but are made float in each run and multiplied in float: "
            "the file is small, the model is not faster",
            f"for speed, {REQUANTIZE}",
            time_share=facts.time_of(nodes),
        )


def _from_int8_weight(value: ir.Value | None) -> bool:
    maker = value.producer() if value is not None else None
    return (
        maker is not None and maker.op_type == "DequantizeLinear" and is_constant(maker.inputs[0])
    )


def _takes_int8(node: ir.Node) -> bool:
    value = node.inputs[0]
    maker = value.producer() if value is not None else None
    return maker is not None and maker.op_type == "DequantizeLinear"


def find_leftovers(facts: Facts) -> Iterator[Finding]:
    """Conversions that are neither at the graph's ends nor at the shore of an island."""
    shores = {c for i in facts.islands if i.touches_int8 for c in (*i.enters, *i.leaves)}
    nodes = [
        node
        for node in facts.running
        if node.op_type in QDQ_OPS - {"DynamicQuantizeLinear"}
        and node not in shores
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
    """Whether it quantizes an input of the graph or dequantizes an output, layouts aside."""
    before = node.inputs[0]
    while before is not None and (maker := before.producer()) is not None:
        if maker.op_type not in {"Transpose", "Reshape", *REORDERS}:
            break
        before = maker.inputs[0]
    from_input = before is not None and before.is_graph_input()
    return from_input or any(v.is_graph_output() for v in node.outputs)


def find_layout(facts: Facts) -> Iterator[Finding]:
    """Changes of layout that onnxruntime had to insert beyond one in and one out."""
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
    mend = (
        "mend the float islands first: each int8 convolution among them changes layout twice"
        if islands
        else f"these operators keep to one layout: {', '.join(beside)}; replace or move them"
    )
    yield Finding(
        "layout",
        "costs",
        # onnxruntime inserts and numbers them in another order from one process to the next.
        tuple(sorted(n.name or n.op_type for n in nodes)),
        f"{len(nodes)} changes between layouts of tensors, {NEEDED_CHANGES} are enough; "
        f"they stand beside {', '.join(beside) or 'each other'}",
        mend,
        time_share=facts.time_of(nodes),
    )


def _neighbours(nodes: Iterable[ir.Node]) -> list[str]:
    """Operators beside layout changes; those that could follow only where there are no others."""
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


def find_fallback(facts: Facts) -> Iterator[Finding]:
    """Nodes that another provider runs than the one that was asked for."""
    if not facts.fallback:
        return
    ops = sorted({op for _, op in facts.fallback})
    products = any(op in FLOAT_OPS for op in ops)
    yield Finding(
        "fallback",
        "costs" if products else "note",
        tuple(name or f"({op})" for name, op in facts.fallback),
        f"{facts.target.provider} has no kernel for them, so they run on the CPU and their tensors "
        f"travel there and back: {', '.join(ops)}",
        "replace these operators, or raise the opset; `trimtab simplify` removes some",
        time_share=None,
    )


def find_channels(facts: Facts) -> Iterator[Finding]:
    """Convolutions whose channels do not fill the kernel's block."""
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
        told = ", ".join(dict.fromkeys(text for _, text, _ in wasted))
        yield Finding(
            "channels",
            "note",
            facts.names_of(nodes),
            f"kernels work on whole blocks of channels, and up to {worst:.0%} of a block is empty "
            f"here: {told}",
            "choose channel counts that are multiples of the block; when pruning channels too",
            time_share=facts.time_of(nodes),
        )


def _out_channels(conv: ir.Node) -> int | None:
    """Output channels of a Conv of the given model, its weight float or dequantized."""
    value = conv.inputs[1] if len(conv.inputs) > 1 else None
    while value is not None and (maker := value.producer()) is not None:
        if maker.op_type not in {"DequantizeLinear", "QuantizeLinear"}:
            break
        value = maker.inputs[0]
    tensor = constant_of(value)
    return int(tensor.shape[0]) if tensor is not None else None  # type: ignore[arg-type]


def find_denormals(facts: Facts) -> Iterator[Finding]:
    """Weights so small that x64 computes with them many times slower."""
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


FINDERS: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
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
