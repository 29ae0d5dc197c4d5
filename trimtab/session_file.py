"""A model together with the session options that were found best for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.core.errors import InputError
from trimtab.core.files import write_text
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session
from trimtab.passes.tuning.session_options import read_options

SCHEMA = 1
NAME = "session.json"


def session(model: Model | str | Path, config: SessionConfig | None = None) -> Any:
    """Open an `onnxruntime.InferenceSession` with the options that `trimtab tune` found.

    They are read from `session.json` beside the file, where that names this file, else from the
    model's metadata; without either they are the defaults.

    Args:
        model: a model or an `.onnx` file.
        config: options that replace the found ones.

    Raises:
        InputError: `session.json` cannot be read.
        OptionError: its provider is not in this onnxruntime.
        RunError: onnxruntime refuses the model.
    """
    return build_session(model, config or session_config(model))


def session_config(model: Model | str | Path) -> SessionConfig:
    """Return the options that belong to a model; the defaults where there are none.

    Raises:
        InputError: `session.json` cannot be read.
    """
    if isinstance(model, Model):
        return read_options(model.ir.metadata_props) or SessionConfig()
    path = Path(model)
    return _beside(path) or read_options(_metadata(path)) or SessionConfig()


def write_session_file(
    model_path: Path, config: SessionConfig, gains: Mapping[str, str], machine: str
) -> Path:
    """Write `session.json` beside a model, whole or not at all.

    It has the speed-up by setting, and the class of the machine that they were measured on.
    """
    document = {
        "schema": SCHEMA,
        "model": model_path.name,
        "machine": machine,
        "config": config.to_json(),
        "gains": dict(gains),
    }
    path = model_path.with_name(NAME)
    write_text(path, json.dumps(document, indent=2, sort_keys=True) + "\n")
    return path


def _beside(path: Path) -> SessionConfig | None:
    file = path.with_name(NAME)
    if not file.is_file():
        return None
    try:
        document = json.loads(file.read_text())
        if document.get("model") != path.name:
            return None
        return SessionConfig.from_json(document["config"])
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise InputError(
            f"is not a session file of trimtab ({type(error).__name__})",
            where=str(file),
            hint="Remove it, or write it again with `trimtab tune`",
        ) from error


def _metadata(path: Path) -> Mapping[str, str]:
    import onnx

    if not path.is_file():
        return {}  # building the session reports what is wrong with it
    proto = onnx.load(path, load_external_data=False)
    return {p.key: p.value for p in proto.metadata_props}
