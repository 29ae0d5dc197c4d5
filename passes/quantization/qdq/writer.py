"""onnxruntime's quantizer as a function from a graph and ranges to a Q/DQ graph.

Its public entry point handles files and calibrates by itself; the class below it takes ranges.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from trimtab.core.garbage import gc_paused
from trimtab.core.model import EXTERNAL_DATA_BYTES, Model
from trimtab.core.target import IntType

from ...calibration.range_estimator import Range
from ...graph.edit import remove_unused_initializers
from ...graph.queries import producer_in_any_domain
from .keep_float import keep_float
from .ort_index import indexed_lookups
from .residual_sums import drop_product_pairs
from .weight_placeholders import PlaceholderAxes, add_placeholders, restore_weights


@dataclass(frozen=True)
class Scheme:
    """Options of a quantization.

    Attributes:
        activation: integer type of activations; that of weights is `weight`.
        per_channel: one scale for each output channel of a weight.
        reduce_range: weights use 7 bits.
        symmetric: zero points of activations are zero.
        ops: operator types to quantize, except the nodes of the names in `exclude`.
        wide: names of activations that have 16 bits.
        inputs_only: round only inputs of products and keep biases float, as TensorRT requires:
            it refuses an int32 bias, and a pair after a product keeps it from fusing the Relu and
            the residual Add there.
    """

    activation: IntType
    weight: IntType
    per_channel: bool
    reduce_range: bool
    symmetric: bool
    ops: frozenset[str]
    exclude: Sequence[str] = ()
    wide: Sequence[str] = ()
    inputs_only: bool = False


@gc_paused()
def observed_tensors(model: Model, scheme: Scheme) -> list[str]:
    """List the activations that need a range since they get a Q/DQ pair, in graph order."""
    proto, _ = to_quantizer_proto(model)
    weights = {w.name for w in proto.graph.initializer}
    order = _activation_names(proto)
    with silenced(), indexed_lookups():
        quantizer = _quantizer(proto, scheme, dict.fromkeys(order, (0.0, 1.0)))
        marked = _marked_tensors(quantizer)
    return [name for name in order if name in marked and name not in weights]


@gc_paused()
def quantize_graph(model: Model, scheme: Scheme, ranges: Mapping[str, Range]) -> ir.Model:
    """Return the Q/DQ graph of a prepared model; `ranges` has all that `observed_tensors` lists."""
    proto, placeholders = to_quantizer_proto(model)
    with silenced(), indexed_lookups():
        quantized = _quantizer(proto, scheme, _with_clip_inputs(proto, ranges)).quantize_model()
    written = from_quantizer_proto(quantized, model)
    restore_weights(written.graph, model, placeholders)
    excluded = set(scheme.exclude)
    stays = {node.name for node in model.graph if node.op_type not in scheme.ops} | excluded
    _unround_products(written.graph, lambda node: node.name in stays)
    if scheme.inputs_only:
        drop_product_pairs(written.graph)
    _bypass_pairs(written.graph, lambda node: node.name in stays)
    remove_unused_initializers(written.graph)
    keep_float(written.graph, stays)
    return written


def _marked_tensors(quantizer: Any) -> set[str]:
    """Return tensors that the quantizer marks, without those that take their input's scale."""
    from onnxruntime.quantization.registry import CreateQDQQuantizer

    for node in quantizer.model.nodes():
        if quantizer.should_quantize_node(node):
            CreateQDQQuantizer(quantizer, node).quantize()
    return {name for name, info in quantizer.tensors_to_quantize.items() if not info.is_shared}


def _with_clip_inputs(proto: onnx.ModelProto, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Give the input of each Relu and Clip its output's range: they are fused into one operator."""
    full = dict(ranges)
    for node in reversed(proto.graph.node):
        if node.op_type in {"Relu", "Clip"} and node.output[0] in full:
            full.setdefault(node.input[0], full[node.output[0]])
    return full


def _quantizer(proto: onnx.ModelProto, scheme: Scheme, ranges: Mapping[str, Range]) -> Any:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    types = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    options: dict[str, Any] = {"ActivationSymmetric": scheme.symmetric, "WeightSymmetric": True}
    if scheme.inputs_only:
        options["QuantizeBias"] = False
        options["OpTypesToExcludeOutputQuantization"] = sorted(scheme.ops)
    if scheme.wide:
        wider = {"int8": QuantType.QInt16, "uint8": QuantType.QUInt16}[scheme.activation]
        options["TensorQuantOverrides"] = {name: [{"quant_type": wider}] for name in scheme.wide}
    return QDQQuantizer(
        proto,
        scheme.per_channel,
        scheme.reduce_range,
        types[scheme.weight],
        types[scheme.activation],
        data,
        [],
        list(scheme.exclude),
        sorted(scheme.ops),
        options,
    )


def to_quantizer_proto(
    model: Model, *, gemms: bool = True
) -> tuple[onnx.ModelProto, PlaceholderAxes]:
    """Return the model as a proto for a quantizer, and its placeholders.

    It contains the types of all tensors, and a mark that saves the quantizer a file.
    """
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    small, axes = add_placeholders(model, gemms=gemms)
    proto = to_whole_proto(small)
    if not axes and model.weight_bytes <= EXTERNAL_DATA_BYTES:
        proto = onnx.shape_inference.infer_shapes(proto)
    # Larger models cannot be serialized for inference; they have the shapes inferred before.
    add_infer_metadata(proto)
    return proto, axes


def to_whole_proto(model: Model) -> onnx.ModelProto:
    """Return the model as a proto that contains all weights, as the quantizers need them."""
    proto: onnx.ModelProto = ir.to_proto(ir.external_data.load_to_model(model.ir.clone()))
    return proto


def _activation_names(proto: onnx.ModelProto) -> list[str]:
    names = [value.name for value in proto.graph.input]
    return names + [name for node in proto.graph.node for name in node.output if name]


def from_quantizer_proto(proto: onnx.ModelProto, model: Model) -> ir.Model:
    """Return the written graph without stale entries that the quantizer leaves."""
    alive = {name for node in proto.graph.node for name in node.output}
    kept = [info for info in proto.graph.value_info if info.name in alive]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    written = ir.from_proto(proto)
    written.graph.sort()  # the quantizer appends new nodes
    written.metadata_props.pop("onnx.infer", None)
    written.producer_name = model.ir.producer_name
    written.producer_version = model.ir.producer_version
    return written


def _unround_products(graph: ir.Graph, floating: Callable[[ir.Node], bool]) -> None:
    """Let matrix products that nothing reads as int8 write float, which their kernels can.

    So an output is not rounded to 256 levels, and one Q and one DQ less run.
    """
    for dequantize in [node for node in graph if node.op_type == "DequantizeLinear"]:
        rounded = dequantize.outputs[0]
        quantize = producer_in_any_domain(dequantize.inputs[0], "QuantizeLinear")
        source = quantize.inputs[0] if quantize is not None else None
        product = producer_in_any_domain(source, "Gemm", "MatMul")
        if quantize is None or product is None:
            continue
        value = product.outputs[0]
        alone = len(value.uses()) == len(quantize.outputs[0].uses()) == 1
        if not alone or not all(floating(node) for node, _ in rounded.uses()):
            continue
        name = rounded.name if rounded.is_graph_output() else value.name
        value.dtype = rounded.dtype or ir.DataType.FLOAT
        value.shape = rounded.shape or value.shape
        rounded.replace_all_uses_with(value, replace_graph_outputs=True)
        graph.remove([dequantize, quantize], safe=True)
        value.name = name


def _bypass_pairs(graph: ir.Graph, floating: Callable[[ir.Node], bool]) -> None:
    """Let float operators read a float tensor itself, not the rounded copy made for others.

    The quantizer gives every reader the copy, which costs residual connections of transformers
    accuracy and a DQ. After an int8 kernel a float tensor does not exist, so the copy stays.
    """
    for quantize in [node for node in graph if node.op_type == "QuantizeLinear"]:
        value = quantize.inputs[0]
        source_node = value.producer() if value is not None else None
        if value is None or (source_node is not None and not floating(source_node)):
            continue
        for dequantize, _ in list(quantize.outputs[0].uses()):
            for reader, index in list(dequantize.outputs[0].uses()):
                if floating(reader):
                    reader.replace_input_with(index, value)
            rounded = dequantize.outputs[0]
            if not rounded.uses() and not rounded.is_graph_output():
                graph.remove(dequantize, safe=True)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silence the quantizer, which logs advice about files through the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
