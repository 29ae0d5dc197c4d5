"""Float islands between int8 nodes: each with its cause and its fix.

Causes are tried from the surest to the vaguest. That S8S8 is the cause is not guessed: the session
is built once more with int8 activations allowed, and nodes that become int8 are `freed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.graphs import constant_of
from trimtab.core.ort.int8_share import FLOAT_OPS

from .findings import Finding, GraphFacts
from .graph import Island, dequantized_by, is_constant, key_of

#: Operators for which onnxruntime's CPU provider fuses a group of Q and DQ into an int8 kernel
#: (its qdq_selector_action_transformer), or drops them because the operator only moves values.
FUSED = frozenset(
    {
        "Add",
        "AveragePool",
        "Concat",
        "Conv",
        "Expand",
        "Flatten",
        "Gather",
        "Gemm",
        "GlobalAveragePool",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Mul",
        "Reshape",
        "Resize",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
#: Operators absorbed into the preceding int8 operator if the zero point does their work.
ABSORBED = frozenset({"Clip", "Relu"})
#: Original operator of those that onnxruntime fuses with an activation.
_UNFUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}


@dataclass(frozen=True)
class Cause:
    """A cause of float nodes between int8 nodes, and its fix."""

    name: str
    why: str
    fix: str


#: Start of the name of a cause, before the operator.
NO_KERNEL = "no-kernel"
REQUANTIZE = "quantize the float model again with `trimtab quantize FLOAT -o OUT --data DATA`"
S8S8 = Cause(
    "s8s8",
    "activations are signed int8 (S8S8); x64 kernels take uint8, and onnxruntime converts only "
    "activations with one reader (proved: with session.qdqisint8allowed=1 these turn int8)",
    f"{REQUANTIZE}, which takes uint8 activations on x64 (--activation uint8)",
)
BATCH_NORM = Cause(
    "batch-norm",
    "a BatchNormalization was not folded into the convolution before it",
    "run `trimtab simplify FLOAT -o OUT` before quantizing: it folds BatchNormalization",
)
REDUCE_MEAN = Cause(
    "reduce-mean",
    "a mean over the image is a ReduceMean, which has no int8 kernel; GlobalAveragePool has one",
    "run `trimtab simplify FLOAT -o OUT` before quantizing: it makes such means pools",
)
SYMMETRIC = Cause(
    "symmetric-uint8",
    "the activation is uint8 with a symmetric range (zero point 128), so the int8 range does not "
    "clip at zero and the Relu or Clip cannot be absorbed",
    f"{REQUANTIZE}, with asymmetric activations (without ActivationSymmetric)",
)
CONSTANT = Cause(
    "constant-weight",
    "its weight is quantized at run time by a QuantizeLinear on a float constant: the quantizer "
    "took a Constant node for an activation, so per-channel scales are lost and the file stays "
    "float",
    "run `trimtab simplify FLOAT -o OUT`, which lifts Constants to weights, then quantize again",
)
UNEXPLAINED = Cause(
    "unexplained",
    "it has int8 on all sides and an int8 kernel, and onnxruntime still did not fuse it",
    "compare with `trimtab quantize` on the float model; onnxruntime's verbose log says more",
)


def find_islands(facts: GraphFacts) -> Iterator[Finding]:
    """Find float islands between int8 nodes, and float products at the ends that should be int8."""
    for island in facts.islands:
        if not island.between and not (island.touches_int8 and _quantized_products(island, facts)):
            continue
        causes = list(causes_of(island, facts))
        yield Finding(
            "float-island",
            "costs",
            facts.names_of(island.nodes),
            "; ".join(cause.why for cause in causes),
            _fixes(causes),
            causes[0].name,
            facts.time_of([*island.nodes, *island.enters, *island.leaves]),
        )


def _fixes(causes: Sequence[Cause]) -> str:
    """Return what to do about all causes; that it is quantized again is said once."""
    fixes = dict.fromkeys(cause.fix for cause in causes)
    again = [fix for fix in fixes if fix.startswith(REQUANTIZE)]
    rest = [fix.removeprefix(REQUANTIZE).removeprefix(", ") for fix in again]
    more = "; ".join(filter(None, rest))
    once = [f"{REQUANTIZE}, {more}" if more else REQUANTIZE] if again else []
    return "; ".join([*once, *(fix for fix in fixes if fix not in again)])


def _quantized_products(island: Island, facts: GraphFacts) -> bool:
    """Return whether a product at the graph's ends should be int8, since its weight is."""
    origins = map(facts.origin_of, island.nodes)
    return any(
        n.op_type in FLOAT_OPS and len(n.inputs) > 1 and dequantized_by(n.inputs[1]) is not None
        for n in origins
        if n is not None
    )


def causes_of(island: Island, facts: GraphFacts) -> Iterator[Cause]:
    """Find the distinct causes of an island, those of products first; at least one."""
    found: dict[str, Cause] = {}
    lacking: dict[str, None] = {}
    for node in sorted(island.nodes, key=lambda node: node.op_type not in FLOAT_OPS):
        if cause := _cause(node, island, facts):
            kind, _, op = cause.name.partition(":")
            lacking |= {op: None} if kind == NO_KERNEL else {}
            found.setdefault(kind, cause)
    if len(lacking) > 1:  # one cause for all such operators, under the name of the first
        found[NO_KERNEL] = _no_kernel(list(lacking), facts)
    yield from found.values() or [UNEXPLAINED]


def _no_kernel(ops: Sequence[str], facts: GraphFacts) -> Cause:
    names, have = ", ".join(ops), "has" if len(ops) == 1 else "have"
    return Cause(
        f"{NO_KERNEL}:{ops[0]}",
        f"{names} {have} no int8 kernel in onnxruntime's {facts.target.provider}",
        f"{REQUANTIZE}, which rewrites what has an equal form (hard activations, shortcuts); "
        f"else replace {names} in the network",
    )


#: Operators whose presence is the cause, whatever is around them.
_CAUSE_OF_OP = {"BatchNormalization": BATCH_NORM, "ReduceMean": REDUCE_MEAN}


def _cause(node: ir.Node, island: Island, facts: GraphFacts) -> Cause | None:
    origin, freed = facts.origin_of(node), key_of(node) in facts.freed
    op = _UNFUSED.get(node.op_type, node.op_type)
    if freed or op in _CAUSE_OF_OP:
        return S8S8 if freed else _CAUSE_OF_OP[op]
    if op in ABSORBED and _symmetric(island.leaves):
        return SYMMETRIC
    if op not in FUSED | ABSORBED:
        return _no_kernel([op], facts)
    if origin is None:
        return None
    if any(_quantizes_constant(value) for value in origin.inputs):
        return CONSTANT
    return _gap(origin) or _moved_scale(node, island)


def _gap(node: ir.Node) -> Cause | None:
    """Find a Q/DQ pair with a missing half, or a node without any Q/DQ."""
    data = [v for i, v in enumerate(node.inputs) if v is not None and _is_operand(node, i)]
    floats = [v for v in data if dequantized_by(v) is None]
    unread = not _quantized_after(node)
    if floats and len(floats) == len(data) and unread:
        return Cause(
            "left-float",
            f"{node.op_type} was left float: no Q/DQ around it",
            f"{REQUANTIZE}, and leave it out of --exclude",
        )
    if not floats and not unread:
        return None
    weight = any(is_constant(v) for v in floats)
    if weight:
        what = "its weight has no QuantizeLinear/DequantizeLinear"
    elif floats:
        what = f"its input {floats[0].name!r} is float, without a DequantizeLinear"
    else:
        what = "its output has no QuantizeLinear, or is read in float as well"
    return Cause("broken-pair", f"a Q/DQ pair is broken: {what}", REQUANTIZE)


def _is_operand(node: ir.Node, index: int) -> bool:
    """Return whether an input is an operand of the arithmetic, not a bias, axes or sizes."""
    limit = {"Conv": 2, "Gemm": 2, "MatMul": 2, "Add": 2, "Mul": 2, "Concat": 10**6}
    return index < limit.get(node.op_type, 1)


def _quantizes_constant(value: ir.Value | None) -> bool:
    """Return whether a value is DQ(Q(constant))."""
    conversion = dequantized_by(value)
    before = conversion.inputs[0] if conversion is not None else None
    node = before.producer() if before is not None else None
    return node is not None and node.op_type == "QuantizeLinear" and is_constant(node.inputs[0])


def _quantized_after(node: ir.Node) -> bool:
    """Return whether only QuantizeLinear reads the output, perhaps after an activation."""
    value = node.outputs[0]
    readers = value.consumers()
    if len(readers) == 1 and readers[0].op_type in ABSORBED:
        value = readers[0].outputs[0]
        readers = value.consumers()
    reads = bool(readers) and all(r.op_type == "QuantizeLinear" for r in readers)
    return reads and not value.is_graph_output()


def _symmetric(leaves: Iterable[ir.Node]) -> bool:
    """Return whether a following conversion has a uint8 zero point above zero."""
    return any(_zero_points(q).dtype == np.uint8 and _zero_points(q).any() for q in leaves)


def _zero_points(conversion: ir.Node) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    value = conversion.inputs[2] if len(conversion.inputs) > 2 else None
    tensor = constant_of(value)
    return np.zeros((), np.uint8) if tensor is None else np.asarray(tensor.numpy())


def _moved_scale(node: ir.Node, island: Island) -> Cause | None:
    """Find an operator that only moves values, between conversions of different scales."""
    if len(island.nodes) > 1 or node.op_type in FLOAT_OPS | {"Add", "Mul", "Concat", "Where"}:
        return None
    scales = [(constant_of(c.inputs[1]), _zero_points(c)) for c in (*island.enters, *island.leaves)]
    first = scales[0]
    same = all(
        s is not None
        and first[0] is not None
        and np.array_equal(s.numpy(), first[0].numpy())
        and np.array_equal(z, first[1])
        for s, z in scales
    )
    if same:
        return None
    return Cause(
        "moved-scale",
        f"{node.op_type} only moves values, but the scales before and after it differ",
        REQUANTIZE,
    )
