"""Checks that every result of a pass must pass."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from trimtab.core.errors import ModelError, PassError, RunError
from trimtab.core.model import EXTERNAL_DATA_BYTES, Model
from trimtab.core.ort.own_fault import checker_objection
from trimtab.core.ort.session import SessionConfig, build_session
from trimtab.core.sparse import stores_sparse

#: Bytes of weights above which a model is checked from a file, since its protobuf would be a copy.
SPILL_BYTES = 256 << 20
_CHECKER_ERRORS = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
#: Hint of the errors about broken promises.
BUG_HINT = "This is a bug of the pass; please report it"


def check_result(before: Model, after: Model, where: str, *, loaded: bool = False) -> None:
    """Check the result of a pass; what the ONNX checker has against its input is not the pass's.

    onnxruntime runs models that the checker refuses: declared shapes that differ from inferred
    ones, inputs without a shape. They stay as they are, and only have to load.

    Raises:
        PassError: the result is refused, for a reason that its input did not give.
    """
    try:
        check_model(after, where, loaded=loaded)
    except PassError as error:
        refused = isinstance(error.__cause__, _CHECKER_ERRORS)
        if not refused or checker_objection(before) is None:
            raise
        _check_loads(after, where)


def _check_loads(model: Model, where: str) -> None:
    try:
        build_session(model, SessionConfig(level="basic"))
    except (RunError, ModelError) as error:
        what = f"makes a model that does not load: {error.what}"
        raise PassError(what, where=where, hint=BUG_HINT) from error


def check_model(model: Model, where: str, *, loaded: bool = False) -> None:
    """Run the full ONNX checker, and load the model in onnxruntime.

    Args:
        model: result of a pass.
        where: place that the message names.
        loaded: true where onnxruntime has loaded this graph already and need not again.

    Raises:
        PassError: one of them refuses the model.
    """
    try:
        if model.weight_bytes > SPILL_BYTES and not stores_sparse(model.ir):
            _check_spilled(model, loaded=loaded)
            return
        _onnx_check(model)
        if not loaded:
            build_session(model, SessionConfig(level="basic"))
    except _CHECKER_ERRORS as error:
        what = f"makes a model that the ONNX checker refuses: {str(error).splitlines()[0]}"
        raise PassError(what, where=where, hint=BUG_HINT) from error
    except (RunError, ModelError) as error:
        what = f"makes a model that does not load: {error.what}"
        raise PassError(what, where=where, hint=BUG_HINT) from error


def _full(model: Model) -> bool:
    # Contrib operators have no schema in the ONNX package, so shapes behind them are not inferred.
    return all(domain in {"", "ai.onnx"} for domain in model.ir.opset_imports)


def _check_spilled(model: Model, *, loaded: bool) -> None:
    """Check a model from a file, whose weights both tools map and neither copies."""
    mapped = SessionConfig(level="basic", config={"session.disable_prepacking": "1"})
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        path = model.spill(Path(folder))
        onnx.checker.check_model(str(path), full_check=_full(model))
        if not loaded:
            build_session(path, mapped)


def _onnx_check(model: Model) -> None:
    full = _full(model)
    if model.weight_bytes <= EXTERNAL_DATA_BYTES:
        # ONNX's shape inference does not handle sparse weights: the full check sees dense ones,
        # and the bytes that are saved get the check without inference.
        sparse = stores_sparse(model.ir)
        onnx.checker.check_model(model.to_proto() if sparse else model.to_bytes(), full_check=full)
        if sparse:
            onnx.checker.check_model(model.to_bytes())
        return
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        onnx.checker.check_model(str(model.save(Path(folder) / "model.onnx")), full_check=full)
