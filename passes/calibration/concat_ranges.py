"""One range for the tensors of a Concat, so that it is a copy of bytes.

With different ranges each branch is requantized while it is copied. Operators that move values
(MaxPool, Resize, Reshape, Transpose, ...) take their input's scale from the quantizer itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from .range_estimator import Range

#: A branch whose own range is smaller than this part of the common one keeps its resolution.
SMALLEST_PART = 0.25


def share_ranges(
    graph: ir.Graph, ranges: Mapping[str, Range], exclude: Collection[str | None] = ()
) -> dict[str, Range]:
    """Return the ranges, shared by each Concat's inputs and output if none loses much by that.

    Concats of the names in `exclude` stay float and share nothing.
    """
    shared = dict(ranges)
    for node in reversed(list(graph)):  # from the last on, so that chains of Concats agree
        if node.op_type != "Concat" or node.name in exclude:
            continue
        out = node.outputs[0].name or ""
        branches = [value for value in node.inputs if value is not None and value.name in shared]
        if out not in shared or not branches:
            continue
        low = min(shared[value.name or ""][0] for value in (*branches, node.outputs[0]))
        high = max(shared[value.name or ""][1] for value in (*branches, node.outputs[0]))
        shared[out] = (low, high)
        for value in branches:
            own = shared[value.name or ""]
            # Another reader would lose resolution.
            if len(value.uses()) == 1 and own[1] - own[0] >= SMALLEST_PART * (high - low):
                shared[value.name or ""] = (low, high)
    return shared
