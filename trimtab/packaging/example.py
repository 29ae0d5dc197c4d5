"""Example that proves a package where it runs: bytes of inputs, and the outputs expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trimtab.core.data import Array
from trimtab.core.errors import InputError
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import QDQ_OPS
from trimtab.core.ort.session import SessionConfig, build_session, run

#: Largest difference from the expected outputs, as a share of their largest value: of float
#: models, and of int8 ones, whose kernels differ by machine.
FLOAT, INT8 = 1e-3, 0.05


def tensors(model: Model, feeds: Mapping[str, Array], config: SessionConfig) -> dict[str, Any]:
    """Return inputs and outputs of one run: name, type, shape, file, and the bytes of each.

    Raises:
        InputError: an input or output is not a numeric tensor, so that no file can have it.
        RunError: onnxruntime refuses the model or the feeds.
    """
    found = run(build_session(model, config), dict(feeds))
    return {
        "inputs": [_tensor(f"input_{i}", name, a) for i, (name, a) in enumerate(feeds.items())],
        "outputs": [_tensor(f"output_{i}", name, a) for i, (name, a) in enumerate(found.items())],
    }


def _tensor(file: str, name: str, array: Any) -> dict[str, Any]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise InputError(
            f"{name!r} is not a tensor of numbers, which a package has as a file",
            where="package",
            hint="Split the model there, and package the part with numbers",
        )
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return {
        "name": name,
        "type": array.dtype.name,
        "shape": list(array.shape),
        "file": f"example/{file}.bin",
        "bytes": little.tobytes(),
    }


def tolerance(model: Model) -> float:
    """Return the difference from the expected outputs that is expected between machines."""
    integer = any(
        node.op_type in QDQ_OPS or node.op_type.startswith("QLinear") or "Integer" in node.op_type
        for node in model.graph.all_nodes()
    )
    return INT8 if integer else FLOAT
