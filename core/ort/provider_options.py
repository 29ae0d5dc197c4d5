"""Options that make a provider run as the rest of a session does: its threads, its precision.

OpenVINO has threads of its own, one a core by default, and computes float32 models in bfloat16
where the CPU has it: its times and its numbers would then not be those of the same model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..errors import OptionError, unknown
from .accelerators import OPENVINO, XNNPACK

#: Names of a precision as people write it, and as OpenVINO does: in its options, in its properties.
_PRECISIONS = {
    **dict.fromkeys(("f32", "fp32", "float32"), ("FP32", "f32")),
    **dict.fromkeys(("f16", "fp16", "float16"), ("FP16", "f16")),
    **dict.fromkeys(("bf16", "bfloat16"), ("", "bf16")),
    "accuracy": ("ACCURACY", "f32"),
}


def with_threads(
    provider: str, options: Mapping[str, str], threads: int, *, plugin: bool
) -> dict[str, str]:
    """Return a provider's options with the session's threads, and float32 unless told otherwise.

    Options that are given stay.

    Raises:
        OptionError: OpenVINO has no such option or precision.
    """
    if provider == XNNPACK:
        return {"intra_op_num_threads": str(threads), **options}
    if provider != OPENVINO:
        return dict(options)
    return _plugin_openvino(options, threads) if plugin else _built_in_openvino(options, threads)


#: Options of OpenVINO, whose plug-in takes a misspelt one without a word.
_OPENVINO = (
    *("device_type", "device_id", "precision", "num_of_threads", "num_streams", "load_config"),
    *("cache_dir", "model_priority", "enable_qdq_optimizer", "reshape_input", "layout"),
    *("disable_dynamic_shapes", "enable_opencl_throttling"),
)


def _on_cpu(options: Mapping[str, str]) -> bool:
    return options.get("device_type", "CPU").upper().startswith("CPU")


def _precision(options: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the precision that is asked for, in OpenVINO's two spellings; f32 on a CPU."""
    text = options.get("precision", "f32" if _on_cpu(options) else "")
    if not text:
        return None
    if text.lower() not in _PRECISIONS:
        raise OptionError(
            f"precision {text!r} is not one of OpenVINO's",
            where="--provider openvino",
            hint="Write precision=f32, f16 or bf16",
        )
    return _PRECISIONS[text.lower()]


def _built_in_openvino(options: Mapping[str, str], threads: int) -> dict[str, str]:
    found = {k: v for k, v in options.items() if k != "precision"}
    found.setdefault("device_type", "CPU")
    precision = _precision(options)
    if precision is not None and "load_config" not in options:
        name, hint = precision
        if name:
            found["precision"] = name
        else:  # bf16 is a property of the device alone
            device = found["device_type"].upper()
            found["load_config"] = json.dumps({device: {"INFERENCE_PRECISION_HINT": hint}})
    return {"num_of_threads": str(threads), **found} if _on_cpu(options) else found


def _plugin_openvino(options: Mapping[str, str], threads: int) -> dict[str, str]:
    for key in options:
        if key not in _OPENVINO:
            raise unknown("option of openvino", key, _OPENVINO)
    found = {k: v for k, v in options.items() if k not in {"precision", "num_of_threads"}}
    if "load_config" in found:
        return found
    properties: dict[str, str] = {}
    precision = _precision(options)
    if precision is not None:
        properties["INFERENCE_PRECISION_HINT"] = precision[1]
    if _on_cpu(options):
        properties["INFERENCE_NUM_THREADS"] = options.get("num_of_threads", str(threads))
    if properties:
        device = options.get("device_type", "CPU").upper()
        found["load_config"] = json.dumps({device: properties})
    return found
