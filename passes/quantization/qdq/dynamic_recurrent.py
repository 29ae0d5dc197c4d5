"""Operators of onnxruntime's own that compute an LSTM or an attention with integer weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from ...graph.constant_reader import Folded
from ...graph.edit import replace_output
from ...graph.graph_writer import copied_attributes
from ...graph.queries import attr, input_at
from .dynamic_graph import DynamicGraph, StoredWeight
from .integer_weights import symmetric

#: Domain of onnxruntime's own operators.
CONTRIB = "com.microsoft"
#: Attributes of LSTM that DynamicQuantizeLSTM has as well; `layout` is 0 in both.
_LSTM_ATTRIBUTES = (
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "input_forget",
)
#: Attributes of Attention that QAttention has as well.
_ATTENTION_ATTRIBUTES = frozenset(
    {"do_rotary", "mask_filter_value", "num_heads", "past_present_share_buffer", "scale"}
    | {"unidirectional"}
)


def write_lstm(edits: DynamicGraph, node: ir.Node) -> str:
    """Write DynamicQuantizeLSTM, which keeps its states and cell in float.

    Its weights are (directions, inputs, 4 * hidden), the last two axes of LSTM's swapped, with
    scales (directions, 4 * hidden) or (directions).

    Returns:
        "" or the reason why the node stays float.
    """
    if attr(node, "layout", 0):
        return "onnxruntime has no LSTM whose batch is the first axis"
    weights = []
    for index in (1, 2):
        folded, reason = edits.float_weight(input_at(node, index))
        if folded is None:
            return reason
        if folded.array.ndim != 3:
            return "its weight has no three axes"
        weights.append(dataclasses.replace(folded, array=folded.array.transpose(0, 2, 1)))
    stored: list[ir.Value] = []
    scales: list[ir.Value] = []
    for index, folded in zip((1, 2), weights, strict=True):
        source = input_at(node, index)
        assert source is not None
        weight = _per_direction(edits, source, folded)
        assert weight.zero is not None
        stored.append(weight.values)
        scales += [weight.scale, weight.zero]
    rest = [input_at(node, index) for index in range(3, 8)]
    attributes = [node.attributes[name] for name in _LSTM_ATTRIBUTES if name in node.attributes]
    made = edits.node(
        "DynamicQuantizeLSTM",
        [input_at(node, 0), *stored, *rest, *scales],
        node,
        node.name or "LSTM",
        attributes=attributes,
        domain=CONTRIB,
        outputs=len(node.outputs),
    )
    _replace_outputs(node, made)
    return ""


def _replace_outputs(node: ir.Node, made: ir.Node) -> None:
    for old, new in zip(node.outputs, made.outputs, strict=True):
        if old.name:
            replace_output(old, new)
        else:
            new.name = ""


def _per_direction(edits: DynamicGraph, source: ir.Value, folded: Folded) -> StoredWeight:
    """Store a weight of an LSTM, with a scale for each direction or for each of its columns."""
    channels = (0, 2) if edits.per_channel else (0,)
    made = symmetric(folded.array, channels, "int8", reduce_range=edits.reduce_range)
    shape = [folded.array.shape[axis] for axis in channels]
    scale = made.scale.reshape(shape)
    stored = edits.store(source, folded.graph, made, scale)
    zeros = edits.constant(folded.graph, np.zeros(shape, np.int8), f"{source.name}_zero_point")
    return dataclasses.replace(stored, zero=zeros)


def write_attention(edits: DynamicGraph, node: ir.Node) -> str:
    """Write QAttention for onnxruntime's Attention of one packed weight.

    Returns:
        "" or the reason why the node stays float.
    """
    more = [name for name in node.attributes if name not in _ATTENTION_ATTRIBUTES]
    more += ["do_rotary"] if attr(node, "do_rotary", 0) else []
    if more:
        return f"onnxruntime has no int8 attention with {more[0]}"
    if any(input_at(node, index) is not None for index in (5, 6)):
        return "onnxruntime has no int8 attention with a bias of the scores or a shared cache"
    x, source = input_at(node, 0), input_at(node, 1)
    folded, reason = edits.float_weight(source)
    if folded is None or source is None or x is None:
        return reason
    columns = folded.array.shape[-1]
    stored = edits.weight(source, folded, [1], shape=[columns])
    zero = stored.zero or edits.constant(
        folded.graph, np.zeros((), edits.kind), f"{source.name}_zero_point"
    )
    rounded, bias = edits.rounded(x, node), input_at(node, 2)
    if bias is None:
        bias = edits.constant(folded.graph, np.zeros(columns, np.float32), f"{node.name}_bias")
    inputs = [rounded.values, stored.values, bias, rounded.scale, stored.scale]
    made = edits.node(
        "QAttention",
        [*inputs, input_at(node, 3), rounded.zero, zero, input_at(node, 4)],
        node,
        node.name or "Attention",
        attributes=copied_attributes(node),
        domain=CONTRIB,
        outputs=len(node.outputs),
    )
    _replace_outputs(node, made)
    return ""
