"""Inner tensors of a model, which is run no further than to the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trimtab.core.data import Batch
from trimtab.core.model import Model
from trimtab.core.ort.inner_shapes import inner_bytes
from trimtab.core.ort.session import Outputs, SessionConfig, build_session, run

from ...graph.runs_in_parts import RunsInParts, up_to


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
    session = build_session(up_to(model, inner), SessionConfig.for_inner_tensors("basic"))
    needed = [i.name for i in session.get_inputs()]
    for batch in batches:
        feeds = {name: batch.feeds[name] for name in needed}
        found = {**batch.feeds, **run(session, feeds, inner)}
        yield found
        found.clear()


def outputs_in_parts(
    model: Model, tensors: Sequence[str], batches: Sequence[Batch]
) -> Iterator[Outputs]:
    """Yield named tensors, each once for each batch, as many at a time as memory is meant for.

    They are inputs of the graph or inner tensors, and valid while their batch is run.
    """
    fed = {spec.name for spec in model.inputs}
    inner = [name for name in tensors if name not in fed]
    runs: RunsInParts | None = None
    for batch in batches:
        yield {name: batch.feeds[name] for name in tensors if name in fed}
        if inner:
            runs = runs or RunsInParts(
                model, inner, inner_bytes(model, inner, batch.feeds), level="basic"
            )
            yield from runs.run(batch.feeds)
