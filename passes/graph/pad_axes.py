"""Pads that name their axes, written for all axes.

onnxruntime's layout optimizer loses the axes of a Pad next to int8 convolutions (1.32.0), and then
pads others.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .free_names import FreeNames
from .queries import input_at, ints, is_onnx_op, rank


def spell_out_pads(model: ir.Model) -> int:
    """Write each Pad of constant axes and amounts without axes, in place; return their number."""
    graph, names, count = model.graph, FreeNames(model), 0
    for node in graph:
        axes, amounts = ints(input_at(node, 3)), ints(input_at(node, 1))
        ndim = rank(node.inputs[0]) if node.inputs else None
        pad = node.op_type == "Pad" and is_onnx_op(node)
        if not pad or axes is None or amounts is None or ndim is None:
            continue
        full = np.zeros((2, ndim), np.int64)
        full[:, [axis % ndim for axis in axes]] = np.reshape(amounts, (2, -1))
        name = names.value(f"{node.name}_pads")
        value = ir.val(name, const_value=ir.tensor(full.reshape(-1), name=name))
        graph.register_initializer(value)
        node.replace_input_with(1, value)
        node.resize_inputs(3)
        count += 1
    return count
