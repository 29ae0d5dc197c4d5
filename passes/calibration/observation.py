"""Inner tensors of a model, observed batch by batch over a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.inner_outputs import with_only_outputs
from trimtab.core.ort.session import Outputs, SessionConfig, build_session, run


def observe(
    model: Model, tensors: Sequence[str], data: Dataset, ctx: Context, activity: str, rows: int = 16
) -> Iterator[Outputs]:
    """Run the model over the data and yield each batch's inputs and named tensors.

    The tensors are inputs of the graph or inner ones; `activity` is the text that progress shows.
    """
    fed = {spec.name for spec in model.inputs}
    inner = [name for name in tensors if name not in fed]
    session = build_session(with_only_outputs(model, inner), SessionConfig.for_inner_tensors())
    batches = fitting(model, data, rows=rows)
    for batch in ctx.progress.track(batches, activity, batches.batches):
        yield {**batch.feeds, **(run(session, batch.feeds, inner) if inner else {})}
