"""Large weights that sessions read where they lie, instead of a copy in each.

A message of 200 MB is written, parsed and copied in half a second and three times that memory, for
each of the dozens of sessions of a search; onnxruntime takes the arrays as they are in 0.15 s.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from ..messages import weights_apart
from ..model import EXTERNAL_DATA_BYTES, Model
from ..runtime import runtime

#: Bytes of a model, and of a weight, from which that pays.
LARGE_MODEL, LARGE = 16 << 20, 1 << 16


@dataclass(frozen=True)
class Given:
    """Message of a model without its large weights, and these, which outlive the session."""

    message: contextlib.AbstractContextManager[str | bytes]
    weights: dict[str, Any]


def given_weights(model: Model, options: Any) -> Given | None:
    """Give the large weights of a model to session options.

    None where it has none, and where what has to stay in its message is too much for one.
    """
    if model.weight_bytes < LARGE_MODEL:
        return None
    apart = weights_apart(model.ir, LARGE)
    inside = model.weight_bytes - sum(tensor.nbytes for tensor in apart.values())
    if not apart or inside > EXTERNAL_DATA_BYTES:
        return None
    ort = runtime()

    message, arrays = model.to_shell(LARGE)
    weights = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    options.add_external_initializers(list(weights), list(weights.values()))
    return Given(contextlib.nullcontext(message), weights)
