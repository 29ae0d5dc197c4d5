"""Means over a whole image as GlobalAveragePool, the operator that quantizes best.

ReduceMean has no int8 kernel. An AveragePool whose window is the whole image has one, but gets the
scale of its input, and the range of a mean is far narrower.
"""

from __future__ import annotations

import onnx_ir as ir

from ..graph.declined import Declined
from ..graph.edit import replace_output
from ..graph.queries import attr, axes_of, is_onnx_op, node_label


def pool_means(model: ir.Model) -> list[Declined]:
    """Replace ReduceMean and AveragePool by GlobalAveragePool where they are the same; in place.

    Only over two spatial axes or more: a mean over the last axis of three may begin a
    LayerNormalization, which onnxruntime fuses by its ReduceMean.
    """
    declined = []
    for node in list(model.graph.all_nodes()):
        if _whole_window(node):
            _swap(node, [ir.node("GlobalAveragePool", [node.inputs[0]], name=node.name)])
        if node.op_type != "ReduceMean" or not is_onnx_op(node):
            continue
        reason = _refusal(node)
        if reason:
            declined.append(Declined(node_label(node), reason))
        elif reason is None:
            _replace(node)
    return declined


def _whole_window(node: ir.Node) -> bool:
    """Return whether a node is an AveragePool over one window that is the whole image."""
    if node.op_type != "AveragePool" or not is_onnx_op(node):
        return False
    source = node.inputs[0]
    if source is None or source.shape is None or source.dtype != ir.DataType.FLOAT:
        return False
    sizes = [size if isinstance(size, int) else None for size in source.shape][2:]
    padded = any(attr(node, "pads", ()))
    fixed = attr(node, "auto_pad", "NOTSET") in {"NOTSET", "VALID"}
    dilated = max(attr(node, "dilations", (1,))) > 1
    whole = list(attr(node, "kernel_shape")) == sizes
    return whole and fixed and not padded and not dilated


def _refusal(node: ir.Node) -> str | None:
    """Return None if the node can be replaced, "" for another kind of mean, else a reason."""
    source = node.inputs[0]
    axes = axes_of(node)
    if source is None or not axes:
        return ""
    if source.shape is None:
        return "a ReduceMean over an input of unknown rank stays"
    rank = len(source.shape)
    if rank < 4 or sorted(a % rank for a in axes) != list(range(2, rank)):
        return ""
    if source.dtype != ir.DataType.FLOAT:
        name = source.dtype.name.lower() if source.dtype else "unknown type"
        return f"a ReduceMean of {name} stays: the pooling kernels are float32"
    return None


def _replace(node: ir.Node) -> None:
    """Write (N, C, d1 .. dk) -> (N, C, 1 .. 1), flattened to (N, C) without keepdims."""
    source, old = node.inputs[0], node.outputs[0]
    assert source is not None
    assert source.shape is not None
    pool = ir.node("GlobalAveragePool", [source], name=node.name)
    new_nodes = [pool]
    if not attr(node, "keepdims", 1):
        pooled = pool.outputs[0]
        pooled.name, pooled.type = f"{old.name}_pooled", source.type
        pooled.shape = ir.Shape([*source.shape[:2], *[1] * (len(source.shape) - 2)])
        # Flatten names no size, so a dynamic batch stays dynamic.
        new_nodes.append(ir.node("Flatten", [pooled], {"axis": 1}, name=f"{node.name}_flatten"))
    _swap(node, new_nodes)


def _swap(node: ir.Node, new_nodes: list[ir.Node]) -> None:
    """Replace a node by nodes, the last of which takes over its output and the name."""
    assert node.graph is not None
    assert node.inputs[0] is not None
    result = new_nodes[-1].outputs[0]
    result.type = node.inputs[0].type
    node.graph.insert_after(node, new_nodes)
    replace_output(node.outputs[0], result)
    node.graph.remove(node, safe=True)
