"""Table of the operators that channels are followed through; all others pin their channels."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ...graph.queries import is_onnx_op
from . import rules_elementwise as elementwise
from . import rules_layout as layout
from . import rules_products as products
from . import rules_slicing as slicing
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
    **dict.fromkeys(_UNARY.split(), elementwise.same),
    **dict.fromkeys(_BINARY.split(), elementwise.elementwise),
    **dict.fromkeys(_REDUCE.split(), elementwise.reduce),
    **dict.fromkeys(_ALONG.split(), elementwise.along_axis),
    **dict.fromkeys(_POOL.split(), elementwise.pool),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), layout.reshape),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), elementwise.quantize),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), elementwise.layer_norm),
    **dict.fromkeys(("Constant", "ConstantOfShape"), _nothing),
    **dict.fromkeys(("Resize", "Upsample"), elementwise.resize),
    "Attention": products.attention,
    "BatchNormalization": elementwise.batch_norm,
    "Concat": layout.concat,
    "Conv": products.conv,
    "ConvTranspose": products.conv_transpose,
    "DepthToSpace": layout.depth_to_space,
    "Einsum": products.einsum,
    "Expand": layout.expand,
    "Gather": slicing.gather,
    "Gemm": products.gemm,
    "GroupNormalization": elementwise.group_norm,
    "InstanceNormalization": elementwise.instance_norm,
    "MatMul": products.matmul,
    "Pad": slicing.pad,
    "Shape": slicing.shape_of,
    "Slice": slicing.slice_axes,
    "SpaceToDepth": layout.space_to_depth,
    "Split": layout.split,
    "Tile": layout.tile,
    "Transpose": layout.transpose,
}


def rule_of(node: ir.Node) -> Rule | None:
    """Return the rule of an operator, None where it has none."""
    return RULES.get(node.op_type) if is_onnx_op(node) else None
