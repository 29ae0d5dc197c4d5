"""Graph that really runs in a place: as an .ort file, and the operators that its runtime needs."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session

from .places import Destination

_HEAD = "# Operators and types of the graph that runs; for build.py --include_ops_by_config"
_ORT = {"session.save_model_format": "ORT"}


def ort_bytes(model: Model, config: SessionConfig, place: Destination) -> bytes:
    """Return a model in onnxruntime's own format, optimized for a place.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    fused = replace(config, config={**config.config, **place.config, **_ORT})
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        path = Path(folder) / "model.ort"
        build_session(model, fused.without(*place.without), save_to=path)
        return path.read_bytes()


def required_operators(
    model: Model, config: SessionConfig, place: Destination, *, ort: bool
) -> str:
    """Return the text of `required_operators.config`: operators and their types.

    They are those of the graph that runs, with what the optimizer put in. Where the .onnx file is
    shipped, those of the graph before fusing too: a session assigns its nodes before it fuses them.
    """
    graphs = [ort_bytes(model, config, place)]
    if not ort:
        graphs.append(ort_bytes(model, replace(config, level="basic"), place))
    return _config_of(graphs)


def _config_of(graphs: Sequence[bytes]) -> str:
    from onnxruntime.tools.ort_format_model import create_config_from_models

    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        paths = [Path(folder) / f"{number}.ort" for number in range(len(graphs))]
        for path, data in zip(paths, graphs, strict=True):
            path.write_bytes(data)
        made = Path(folder) / "required.config"
        logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
        create_config_from_models(paths, made, True)  # noqa: FBT003 - it has no keyword for it
        text = made.read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    return f"{_HEAD}\n{lines}"


def operators_in(config: str) -> list[str]:
    r"""Return the operators that a `required_operators.config` names, as "domain:operator".

    >>> operators_in("ai.onnx;11;Add,Conv{'inputs': {'0': ['float']}}")
    ['ai.onnx:Add', 'ai.onnx:Conv']
    """
    found = []
    for line in config.splitlines():
        domain, _, rest = line.partition(";")
        if line.startswith("#") or not rest:
            continue
        plain = re.sub(r"\{[^{}]*(\{[^{}]*\}[^{}]*)*\}", "", rest.partition(";")[2])
        found += [f"{domain}:{name}" for name in plain.split(",") if name]
    return sorted(dict.fromkeys(found))
