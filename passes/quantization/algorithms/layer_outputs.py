"""Inner tensors of a model, which is run no further than to the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trimtab.core.data import Batch
from trimtab.core.model import Model
from trimtab.core.ort.session import Outputs, SessionConfig, build_session, run, with_only_outputs
from trimtab.core.target import usable_cpus


def inner_outputs(
    model: Model, tensors: Sequence[str], batches: Sequence[Batch]
) -> Iterator[Outputs]:
    """Yield each batch's feeds together with the named tensors, inputs of the graph among them.

    They are valid until the next are asked for: a run needs their memory.
    """
    fed = {spec.name for spec in model.inputs}
    inner = [name for name in tensors if name not in fed]
    if not inner:
        yield from (dict(batch.feeds) for batch in batches)
        return
    # Q and DQ are run as they stand: the observed tensors lie inside of what would be fused.
    config = SessionConfig(level="basic", threads=usable_cpus())
    session = build_session(_up_to(model, inner), config)
    needed = [i.name for i in session.get_inputs()]
    for batch in batches:
        feeds = {name: batch.feeds[name] for name in needed}
        found = {**batch.feeds, **run(session, feeds, inner)}
        yield found
        found.clear()


def _up_to(model: Model, tensors: Sequence[str]) -> Model:
    """Return a copy that ends where the tensors are made."""
    part = with_only_outputs(model, tensors)
    needed: set[ir.Node] = set()
    waiting = [value.producer() for value in part.graph.outputs]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in needed:
            needed.add(node)
            waiting += [value.producer() for value in node.inputs if value is not None]
    whole = any(node.graph is not part.graph for node in part.graph.all_nodes())
    if not whole:  # subgraphs read outer tensors, so all nodes are kept
        for node in reversed([node for node in part.graph if node not in needed]):
            part.graph.remove(node, safe=True)
    return part
