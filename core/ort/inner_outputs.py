"""Copies of models that give inner tensors as outputs, to look at what runs inside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from ..errors import RunError
from ..model import Model


def with_outputs(model: Model, names: Sequence[str]) -> Model:
    """Return a copy with the named inner tensors as further outputs, after the model's own.

    Raises:
        RunError: there is no tensor of that name.
    """
    copy = model.clone()
    values = {v.name: v for node in copy.graph for v in node.outputs}
    present = {v.name for v in copy.graph.outputs}
    added = [name for name in dict.fromkeys(names) if name not in present]
    for name in added:
        if name not in values:
            raise RunError(f"no tensor named {name!r}", where=model.name)
    copy.graph.outputs.extend(values[name] for name in added)
    return copy


def with_only_outputs(model: Model, tensors: Sequence[str]) -> Model:
    """Return a copy whose outputs are the named inner tensors alone."""
    copy = with_outputs(model, tensors)
    wanted = set(tensors)
    kept = [value for value in copy.graph.outputs if value.name in wanted]
    if kept:  # where only inputs are wanted, the model keeps its outputs
        copy.graph.outputs[:] = kept
    return copy


def with_untyped_outputs(running: Model, names: Iterable[str]) -> Model:
    """Return a copy with inner tensors as further outputs, whose types onnxruntime infers."""
    proto = ir.to_proto(running.ir)
    present = {output.name for output in proto.graph.output}
    for name in dict.fromkeys(names):
        if name not in present:
            proto.graph.output.add().name = name
    return Model.from_proto(proto, running.name)
