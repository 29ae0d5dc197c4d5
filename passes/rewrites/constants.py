"""Constant folding of what masks and shapes are made of.

onnxruntime folds them too while it loads; some runtimes do not, and later rules see a constant.
"""

from __future__ import annotations

import onnx_ir as ir

from ..graph.forms.folding import FOLDABLE, constant_value
from ..graph.queries import is_onnx_op
from .rule import Found, rewrite_rule

MAX_BYTES = 1_000_000


@rewrite_rule("constants-folded", at=FOLDABLE)
def constants_folded(node: ir.Node) -> Found:
    """Store a result that depends on constants only as a weight."""
    if not is_onnx_op(node) or not node.inputs:
        return None
    array = constant_value(node.outputs[0])
    if array is None:
        return None
    if array.nbytes > MAX_BYTES:
        return f"its result has more than {MAX_BYTES:,} bytes"
    return lambda w: w.weight(array, "folded")
