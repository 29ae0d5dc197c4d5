"""Protobuf messages for onnxruntime's quantizers, and graphs from theirs."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from trimtab.core.model import EXTERNAL_DATA_BYTES, Model

from .weight_placeholders import PlaceholderAxes, add_placeholders


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
