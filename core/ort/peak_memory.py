"""Peak memory of a run, counted on the graph instead of measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from ..graphs import values_inside
from ..model import Model
from .feeding import random_feeds
from .inner_shapes import inner_tensors
from .session import Feeds, SessionConfig, optimized_graph


def peak_bytes(
    model: Model, config: SessionConfig | None = None, feeds: Feeds | None = None
) -> int:
    """Return the bytes of the weights and of all live values at the peak of a run.

    Counted on the optimized graph, in the order of its operators. A result that overwrites its
    input counts beside it, so this is an upper estimate, and the same at each call. Feeds fix the
    shapes; where None they are random, of batch 1.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    config = config or SessionConfig()
    # The blocked layout of float convolutions depends on the machine, and would hide sizes.
    running = replace(model, ir=optimized_graph(model, config.without("NchwcTransformer")))
    feeds = feeds if feeds is not None else random_feeds(model)
    return running.weight_bytes + _peak(running.graph, _sizes(running, config, feeds))


def _sizes(running: Model, config: SessionConfig, feeds: Feeds) -> dict[str, int]:
    """Return the bytes of each value that is not a weight, by one run; a sequence has none."""
    found = inner_tensors(running, feeds, config)
    fed = {name: array.nbytes for name, array in feeds.items()}
    return fed | {name: tensor.nbytes for name, tensor in found.items()}


def _peak(graph: ir.Graph, sizes: Mapping[str, int]) -> int:
    """Return the largest sum of sizes of values between their production and last use."""
    nodes = list(graph)
    last_use: dict[str, int] = {}
    for index, node in enumerate(nodes):
        seen = (*node.outputs, *node.inputs, *values_inside(node))
        last_use |= {v.name: index for v in seen if v and v.name}
    last_use |= dict.fromkeys((str(v.name) for v in graph.outputs), len(nodes))
    ending: dict[int, list[str]] = {}
    for name, index in last_use.items():
        ending.setdefault(index, []).append(name)
    live = peak = sum(sizes.get(str(v.name), 0) for v in graph.inputs)
    for index, node in enumerate(nodes):
        live += sum(sizes.get(str(v.name), 0) for v in node.outputs)
        peak = max(peak, live)
        live -= sum(sizes.get(name, 0) for name in ending.get(index, ()))
    return peak
