"""Table of the operators that channels are followed through; all others pin their channels."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from .rules_elementwise import (
    along_axis,
    batch_norm,
    elementwise,
    group_norm,
    instance_norm,
    layer_norm,
    pool,
    quantize,
    reduce,
    resize,
    same,
)
from .rules_layout import (
    concat,
    depth_to_space,
    expand,
    reshape,
    space_to_depth,
    split,
    tile,
    transpose,
)
from .rules_products import attention, conv, conv_transpose, einsum, gemm, matmul
from .rules_slicing import gather, pad, shape_of, slice_axes
from .tracer import Trace

Rule = Callable[[Trace, ir.Node], None]

_UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Dropout Elu Erf "
    "Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not "
    "Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh "
    "ThresholdedRelu"
)
_BINARY = (
    "Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max "
    "Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor"
)
_REDUCE = (
    "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
    "ReduceProd ReduceSum ReduceSumSquare"
)
_ALONG = "CumSum Hardmax LogSoftmax LpNormalization LRN Softmax TopK Trilu"
_POOL = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"


def _nothing(t: Trace, node: ir.Node) -> None:
    """Record nothing: constants get their channel ids where they are read."""


RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY.split(), same),
    **dict.fromkeys(_BINARY.split(), elementwise),
    **dict.fromkeys(_REDUCE.split(), reduce),
    **dict.fromkeys(_ALONG.split(), along_axis),
    **dict.fromkeys(_POOL.split(), pool),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), quantize),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), layer_norm),
    **dict.fromkeys(("Resize", "Upsample"), resize),
    "Attention": attention,
    "BatchNormalization": batch_norm,
    "Concat": concat,
    "Constant": _nothing,
    "ConstantOfShape": _nothing,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": depth_to_space,
    "Einsum": einsum,
    "Expand": expand,
    "Gather": gather,
    "Gemm": gemm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "MatMul": matmul,
    "Pad": pad,
    "Shape": shape_of,
    "Slice": slice_axes,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Tile": tile,
    "Transpose": transpose,
}


def rule_of(node: ir.Node) -> Rule | None:
    """Return the rule of an operator, None where it has none."""
    return RULES.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
