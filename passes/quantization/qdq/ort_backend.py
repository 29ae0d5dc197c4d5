"""onnxruntime's own static quantizer, through its public interface: files and a reader of rows."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from trimtab.core.batches import fixed_rows, in_runs
from trimtab.core.dataset import Dataset
from trimtab.core.errors import PassError
from trimtab.core.model import EXTERNAL_DATA_BYTES, Model
from trimtab.core.ort.session import Feeds

from ...calibration.range_estimator import Method
from .scheme import Scheme

#: Its methods to find ranges, by the nearest of ours; it has no search of the least error.
METHODS = {"entropy": "Entropy", "percentile": "Percentile"}


def quantize_with_onnxruntime(
    model: Model,
    scheme: Scheme,
    data: Dataset,
    *,
    method: Method,
    percentile: float,
    overrides: dict[str, Any] | None = None,
) -> ir.Model:
    """Return the Q/DQ graph that onnxruntime's `quantize_static` makes of a prepared model.

    Args:
        model: the float model.
        scheme: types, operators and excluded nodes.
        data: rows to calibrate on, read one at a time.
        method: method that finds ranges; MinMax for those that onnxruntime has not.
        percentile: part of the values, in percent, that `percentile` keeps.
        overrides: its `TensorQuantOverrides`.

    Raises:
        PassError: onnxruntime's quantizer fails.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    types = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    options = _options(scheme, overrides)
    if method == "percentile":
        options["CalibPercentile"] = percentile
    with tempfile.TemporaryDirectory() as folder, silenced():
        source, target = (Path(folder, name) for name in ("float.onnx", "int8.onnx"))
        model.save(source)
        try:
            quantize_static(
                source,
                target,
                _reader(model, data),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=sorted(scheme.ops),
                per_channel=scheme.per_channel,
                reduce_range=scheme.reduce_range,
                activation_type=types[scheme.activation],
                weight_type=types[scheme.weight],
                nodes_to_exclude=[name for name in scheme.exclude if name],
                use_external_data_format=model.weight_bytes > EXTERNAL_DATA_BYTES,
                calibrate_method=CalibrationMethod[METHODS.get(method, "MinMax")],
                extra_options=options,
            )
        except Exception as error:
            line = (str(error).strip().splitlines() or [""])[0][:200]
            raise PassError(
                f"onnxruntime's quantizer fails ({type(error).__name__}: {line})",
                where=model.name,
                hint="Use the backend trimtab",
            ) from error
        written = ir.external_data.load_to_model(ir.load(target))
    written.metadata_props.pop("onnx.infer", None)
    written.producer_name = model.ir.producer_name
    written.producer_version = model.ir.producer_version
    return written


def _options(scheme: Scheme, overrides: dict[str, Any] | None) -> dict[str, Any]:
    options: dict[str, Any] = {"ActivationSymmetric": scheme.symmetric, "WeightSymmetric": True}
    if scheme.inputs_only:
        only_inputs = sorted(scheme.ops)
        options |= {"QuantizeBias": False, "OpTypesToExcludeOutputQuantization": only_inputs}
    return options | ({"TensorQuantOverrides": overrides} if overrides else {})


def _reader(model: Model, data: Dataset) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    rows = fixed_rows(model) or 1

    class Rows(CalibrationDataReader):  # type: ignore[misc]
        """Rows of a data set, as onnxruntime asks for them."""

        def __init__(self) -> None:
            self._feeds: Iterator[Feeds] = (
                batch.feeds for batch in in_runs(model, data.sized(rows), rows)
            )

        def get_next(self) -> Feeds | None:
            return next(self._feeds, None)

    return Rows()


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
