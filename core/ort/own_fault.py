"""Faults that a model had before any pass touched it."""

from __future__ import annotations

from ..errors import ModelError, TrimtabError
from ..load import fault
from ..model import EXTERNAL_DATA_BYTES, Model
from .session import SessionConfig, build_session

_HINT = "This is a fault of the file, not of the command; export or download it again"


def own_fault(model: Model) -> ModelError | None:
    """Return the error that a model deserves by itself; None where onnxruntime loads it.

    Asked when a pass fails or makes a model that is not valid, so that a broken file is not called
    a bug of the pass.
    """
    try:
        build_session(model, SessionConfig(level="basic"))
    except MemoryError:
        return None
    except TrimtabError as error:
        return ModelError(f"{error.what}", where=model.name, hint=error.hint or _HINT)
    except Exception as error:  # noqa: BLE001 - reading of a damaged graph fails in many ways
        text = str(error).strip().partition("\n")[0][:300]
        what = f"cannot be read ({type(error).__name__}: {text})"
        return ModelError(what, where=model.name, hint=_HINT)
    return None


def checker_objection(model: Model) -> str | None:
    """Return what the ONNX checker, with shape inference, has against a model by itself."""
    if model.weight_bytes > EXTERNAL_DATA_BYTES:
        return None
    full = all(domain in {"", "ai.onnx"} for domain in model.ir.opset_imports)
    return fault(model.to_proto(), full=full)
