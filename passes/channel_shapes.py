"""A concrete shape for every tensor: what labels are laid out by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.session import SessionConfig, build_session, random_feeds, run

from .calibrate import observing

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """Concrete shapes of the tensors of the main graph, for a few samples.

    Attributes:
        sizes: by name.
        varies: names and axes whose length follows from that of an input.
        samples: how many samples the sizes are for.
    """

    sizes: Mapping[str, Shape]
    varies: frozenset[tuple[str, int]]
    samples: int


def concrete_shapes(model: Model) -> Shapes:
    """Shapes of all tensors, for the sizes that `random_feeds` gives to free dimensions.

    Inference tells them where it can, a run of the model tells the others. Two batch sizes are
    compared, so that an axis that only looks like one of channels since a batch of one was merged
    into it is told apart.
    """
    first, second = (_shapes_for(model, batch) for batch in (2, 3))
    varies = {
        (name, axis)
        for name, shape in first.items()
        for axis, size in enumerate(shape)
        if len(second.get(name, ())) == len(shape) and second[name][axis] != size
    }
    lead = [spec.shape[0] for spec in model.inputs if spec.shape]
    fixed = [d for d in lead if isinstance(d, int)]
    return Shapes(first, frozenset(varies), fixed[0] if fixed else 2)


def _shapes_for(model: Model, batch: int) -> dict[str, Shape]:
    feeds = random_feeds(model, batch=batch)
    known = _inferred(model, {name: array.shape for name, array in feeds.items()})
    values = [v for node in model.graph for v in node.outputs if v.name]
    missing = [str(v.name) for v in values if v.name not in known]
    if missing:
        try:
            session = build_session(observing(model, missing), SessionConfig(level="off"))
            known |= {n: np.shape(a) for n, a in run(session, feeds, missing).items()}
        except RunError:
            return known  # what stays unknown is pinned, and said
    return known


def _inferred(model: Model, fed: Mapping[str, Shape]) -> dict[str, Shape]:
    copy = dataclasses.replace(model, lineage=()).clone().ir
    forget_shapes(copy, outputs=True)
    for value in copy.graph.inputs:
        if str(value.name) in fed:
            value.shape = ir.Shape(list(fed[str(value.name)]))
    ShapeInferencePass(check_type=False, strict_mode=False)(copy)
    known: dict[str, Shape] = dict(fed)
    for node in copy.graph:
        for value in node.outputs:
            shape = value.shape
            if value.name and shape is not None and shape.is_static():
                known[value.name] = tuple(int(d) for d in shape.numpy())
    return known


def forget_shapes(model: ir.Model, *, outputs: bool = False) -> None:
    """Drop the shapes of inner tensors, which changes of the graph make wrong."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            for value in node.outputs:
                if outputs or not value.is_graph_output():
                    value.shape = None


def infer_again(model: ir.Model) -> None:
    """Shapes of inner tensors after channels went."""
    forget_shapes(model)
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
