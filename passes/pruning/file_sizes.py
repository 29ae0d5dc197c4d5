"""Size of a model's file, as it is and compressed."""

from __future__ import annotations

import dataclasses
import gzip

from trimtab.core.model import EXTERNAL_DATA_BYTES, Model


def file_sizes(model: Model) -> tuple[int, int]:
    """Return the bytes of the file and of the file compressed, both without the lineage.

    The latter is 0 for a model whose weights are beside its file.
    """
    bare = dataclasses.replace(model, lineage=())
    if model.weight_bytes > EXTERNAL_DATA_BYTES:
        return bare.size_bytes, 0
    data = bare.to_bytes()
    return len(data), len(gzip.compress(data, mtime=0))
