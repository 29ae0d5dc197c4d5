"""onnxruntime's own dynamic quantizer, by its public interface."""

from __future__ import annotations

import collections
import dataclasses
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from trimtab.core.errors import PassError
from trimtab.core.maps import from_proto
from trimtab.core.model import EXTERNAL_DATA_BYTES, Model
from trimtab.core.ort.int8_share import INT8_OPS

from .qdq.dynamic_writer import DynamicScheme, Written
from .qdq.ort_backend import silenced


def quantize_by_onnxruntime(model: Model, scheme: DynamicScheme) -> tuple[ir.Model, Written]:
    """Return the graph that onnxruntime's `quantize_dynamic` writes, and its integer operators.

    Raises:
        PassError: it fails.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    ops = ["MatMul", "Gemm", "Attention", "LSTM"]
    ops += ["Conv"] * scheme.convs + ["Gather"] * scheme.embeddings
    # It writes each Gemm as a MatMul first, under a name of its own.
    excluded = [*scheme.exclude, *(f"{name}_MatMul" for name in scheme.exclude)]
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder, silenced():
        source = dataclasses.replace(model, lineage=()).save(Path(folder) / "float.onnx")
        made = Path(folder) / "int8.onnx"
        try:
            quantize_dynamic(
                source,
                made,
                op_types_to_quantize=ops,
                per_channel=scheme.per_channel,
                reduce_range=scheme.reduce_range,
                weight_type=QuantType.QInt8 if scheme.weight == "int8" else QuantType.QUInt8,
                nodes_to_exclude=excluded,
                use_external_data_format=model.weight_bytes > EXTERNAL_DATA_BYTES,
                extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
            )
            written = from_proto(onnx.load(made))
        except Exception as error:
            raise PassError(
                f"onnxruntime's quantizer fails: {type(error).__name__}: {str(error)[:200]}",
                where=model.name,
                hint="Use backend=trimtab, which has no such limit",
            ) from error
    written.producer_name = model.ir.producer_name
    written.producer_version = model.ir.producer_version
    for key in ("onnx.infer", "onnx.quant.pre_process"):
        written.metadata_props.pop(key, None)
    integer = (n.op_type for n in written.graph.all_nodes() if n.op_type in INT8_OPS)
    return written, Written(collections.Counter(integer))
