"""Newer operator sets for old files."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from trimtab.core.maps import from_proto

from ..queries import const, input_at, is_onnx_op

#: Last operator set in which Upsample and Resize map positions as Resize's `asymmetric` does.
_LAST_ASYMMETRIC = 10


def convert_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model in a newer operator set; itself where it has that or a newer one.

    Raises:
        Exception: onnx cannot convert one of its operators.
    """
    now = {o.domain: o.version for o in proto.opset_import}.get("", 1)
    if now >= opset:
        return proto
    source = onnx.ModelProto()
    source.CopyFrom(proto)
    if not {"", "ai.onnx"} & {o.domain for o in proto.opset_import}:
        # As of a tree of scikit-learn alone, all of whose operators are of another domain.
        source.opset_import.append(onnx.helper.make_opsetid("", opset))
        return source
    # The converter takes initializers that are not inputs from IR version 4 on only.
    source.ir_version = max(source.ir_version, 7)
    converted: onnx.ModelProto = onnx.version_converter.convert_version(source, opset)
    if now <= _LAST_ASYMMETRIC:
        made = from_proto(converted)
        for node in made.graph.all_nodes():
            _keep_positions(node)
        converted = ir.to_proto(made)
    return converted


def _keep_positions(node: ir.Node) -> None:
    """Let a Resize choose the pixels that Upsample and the first Resize did."""
    known = "coordinate_transformation_mode" in node.attributes
    if node.op_type != "Resize" or not is_onnx_op(node) or known:
        return
    scales = const(input_at(node, 2))
    smaller = scales is not None and bool((scales <= 1).all()) and bool((scales < 1).any())
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
    node.attributes.add(ir.AttrString("nearest_mode", "ceil" if smaller else "floor"))
