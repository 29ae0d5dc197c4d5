"""Shapes, bytes and types of all tensors of one run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds, SessionConfig, build_session, run, with_untyped_outputs


@dataclass(frozen=True)
class Tensor:
    """Shape and size of one tensor of a run.

    Attributes:
        shape: shape in this run.
        nbytes: size in bytes.
        half: true where it is float16.
    """

    shape: tuple[int, ...]
    nbytes: int
    half: bool = False


def tensors_of(running: Model, config: SessionConfig, feeds: Feeds) -> dict[str, Tensor]:
    """Return all tensors of a graph, by name, from one run of it without further optimization.

    Raises:
        RunError: onnxruntime refuses the graph.
    """
    inner = [v.name for node in running.graph for v in node.outputs if v.name]
    plain = replace(config, level="off").for_one_run(running)
    session = build_session(with_untyped_outputs(running, inner), plain)
    found = {}
    for name, value in (*run(session, feeds).items(), *feeds.items()):
        array = np.asarray(value)
        found[name] = Tensor(array.shape, array.nbytes, array.dtype == np.float16)
    for name, weight in running.graph.initializers.items():
        tensor = weight.const_value
        if tensor is not None:
            half = tensor.dtype.name == "FLOAT16"
            found[name] = Tensor(tuple(tensor.shape.numpy()), tensor.nbytes, half)
    return found
