"""Shapes and bytes of inner tensors, by a run that keeps none of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from ..model import Model
from .inner_outputs import with_untyped_outputs
from .session import Feeds, SessionConfig, build_session, run

Shape = tuple[int, ...]
#: Bytes of an element whose type is not known, or has no size.
_USUAL_BYTES = 4


@dataclass(frozen=True)
class InnerTensor:
    """Type and shape that an inner tensor has in a run; the type is None where it is not known."""

    dtype: ir.DataType | None
    shape: Shape

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        sized = self.dtype not in {None, ir.DataType.STRING}
        each = self.dtype.itemsize if self.dtype is not None and sized else _USUAL_BYTES
        return math.ceil(each * math.prod(self.shape))


def inner_shapes(
    model: Model, names: Sequence[str], feeds: Feeds, config: SessionConfig | None = None
) -> dict[str, Shape]:
    """Return the shapes of inner tensors for these feeds, by one run.

    Their shapes alone are outputs of that run, so it frees each tensor after its last reader.

    Raises:
        RunError: onnxruntime refuses the graph or the feeds, or a name is not that of a tensor.
    """
    if not names:
        return {}
    asked = model.clone()
    inner = {value.name: value for node in asked.graph for value in node.outputs}
    nodes = {name: ir.node("Shape", [inner[name]]) for name in dict.fromkeys(names)}
    asked.graph.extend(nodes.values())
    for index, node in enumerate(nodes.values()):
        node.name = node.outputs[0].name = f"trimtab shape {index}"
        node.outputs[0].dtype = ir.DataType.INT64
    asked.graph.outputs[:] = [node.outputs[0] for node in nodes.values()]
    plain = (config or SessionConfig(level="basic")).for_one_run(asked)
    session = build_session(asked, plain, shapes_first=True)
    found = run(session, feeds)
    return {name: tuple(found[str(n.outputs[0].name)].tolist()) for name, n in nodes.items()}


def inner_tensors(running: Model, feeds: Feeds, config: SessionConfig) -> dict[str, InnerTensor]:
    """Return type and shape of each inner tensor of a graph, run without further optimization.

    Sequences are left out. Errors are those of `inner_shapes`.
    """
    plain = replace(config, level="off").for_one_run(running)
    names = [v.name for node in running.graph for v in node.outputs if v.name]
    # Types are known once it is loaded: an optimized graph states none.
    outputs = build_session(with_untyped_outputs(running, names), plain).get_outputs()
    types = {o.name: _element_type(o.type) for o in outputs if o.type.startswith("tensor(")}
    shapes = inner_shapes(running, [name for name in names if name in types], feeds, plain)
    return {name: InnerTensor(types[name], shape) for name, shape in shapes.items()}


def _element_type(kind: str) -> ir.DataType:
    """Return the type that onnxruntime spells as in `tensor(float)`."""
    return ir.DataType[kind.removeprefix("tensor(").removesuffix(")").upper()]


def inner_bytes(model: Model, names: Sequence[str], feeds: Feeds) -> Mapping[str, int]:
    """Return the bytes of inner tensors for these feeds; for errors see `inner_shapes`."""
    types = {value.name: value.dtype for node in model.graph for value in node.outputs}
    shapes = inner_shapes(model, names, feeds)
    return {name: InnerTensor(types[name], shape).nbytes for name, shape in shapes.items()}
