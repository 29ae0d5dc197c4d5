"""Shapes, bytes and types of all tensors of one run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.ort.inner_shapes import inner_tensors
from trimtab.core.ort.session import Feeds, SessionConfig


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
    found = {
        name: Tensor(value.shape, value.nbytes, value.dtype == ir.DataType.FLOAT16)
        for name, value in inner_tensors(running, feeds, config).items()
    }
    for name, array in feeds.items():
        found[name] = Tensor(array.shape, array.nbytes, array.dtype == np.float16)
    for name, weight in running.graph.initializers.items():
        tensor = weight.const_value
        if tensor is not None:
            half = tensor.dtype.name == "FLOAT16"
            found[name] = Tensor(tuple(tensor.shape.numpy()), tensor.nbytes, half)
    return found
