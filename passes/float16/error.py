"""Error of float16, simulated in float32: each output and weight is rounded to float16 and back.

So the error on any machine is that of a GPU, which keeps tensors in float16 and sums in float32.
The CPU has few float16 kernels; most nodes would silently run in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Batch
from trimtab.core.model import Model
from trimtab.core.ort.session import Outputs, SessionConfig, build_session, run, with_outputs
from trimtab.core.target import usable_cpus

from ..graph.edit import add_initializer
from ..graph.names import fresh_name, share_names
from ..graph.queries import const, is_float

#: Names of nodes that are float16.
NodeNames = Collection[str | None]


@dataclass(frozen=True)
class Float16Error:
    """Errors of float16, relative to the root mean square of the tensor.

    Attributes:
        output: error of the worst output; infinite where float16 overflows.
        nodes: error of each node's output, by name.
    """

    output: float
    nodes: Mapping[str, float]


def simulate_float16(
    model: Model, half: NodeNames, batches: Sequence[Batch], *, inside: bool
) -> Float16Error:
    """Measure the errors of a float32 model with some of its nodes in float16.

    With `inside` the error of each of these nodes too.
    """
    outputs = [str(value.name) for value in model.graph.outputs if is_float(value)]
    inner = {n.name or "": _float_output(n) for n in model.graph if n.name in half}
    watched = [*outputs, *(v for v in inner.values() if inside and v not in outputs)]
    config = SessionConfig(level="off", threads=usable_cpus())
    exact = build_session(with_outputs(model, watched), config)
    rounded = build_session(with_outputs(_rounding(model, half), watched), config)
    noise, size = dict.fromkeys(watched, 0.0), dict.fromkeys(watched, 0.0)
    for batch in batches:
        expected, got = (run(session, batch.feeds, watched) for session in (exact, rounded))
        _add(expected, got, noise, size)
    error = {name: _relative(noise[name], size[name]) for name in watched}
    return Float16Error(
        max((error[name] for name in outputs), default=0.0),
        {node: error[value] for node, value in inner.items() if value in error},
    )


def _float_output(node: ir.Node) -> str:
    """Return the name of the first float32 output that is not left out."""
    return next(str(v.name) for v in node.outputs if v.name and is_float(v))


def _add(expected: Outputs, got: Outputs, noise: dict[str, float], size: dict[str, float]) -> None:
    for name, array in expected.items():
        exact: NDArray[Any] = array.astype(np.float64)
        same = np.isfinite(exact)
        difference = np.where(same, got[name] - np.where(same, exact, 0), 0.0)
        total = float(np.square(difference).sum())
        noise[name] += total if np.isfinite(total) else np.inf
        size[name] += float(np.square(exact[same]).sum())


def _relative(noise: float, size: float) -> float:
    return float(np.sqrt(noise / size)) if size else float(noise > 0)


def _rounding(model: Model, half: NodeNames) -> Model:
    """Return a copy that rounds weights and outputs of the float16 nodes to float16 and back."""
    copy = model.clone()
    share_names(copy.ir)
    inputs: dict[tuple[ir.Graph | None, ir.Value], ir.Value] = {}
    for node in [node for node in copy.nodes() if node.name in half]:
        for index, value in enumerate(node.inputs):
            if value is None or not is_float(value):
                continue
            maker = value.producer()
            if maker is None or (maker.name not in half and maker.op_type != "Cast"):
                place = value.graph if const(value) is not None else node.graph
                if (place, value) not in inputs:
                    inputs[place, value] = _rounded(value, node)
                node.replace_input_with(index, inputs[place, value])
        for value in list(node.outputs):
            if value.name and is_float(value):
                _round_result(node, value)
    return replace(copy, name=model.name)


def _rounded(value: ir.Value, reader: ir.Node) -> ir.Value:
    """Return a float16 input of a node as float32; a subgraph rounds what it captures."""
    array, graph = const(value), reader.graph
    assert graph is not None
    if array is not None and value.graph is not None:
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float16).astype(np.float32)
        return add_initializer(value.graph, f"{value.name}_rounded", rounded)
    nodes, maker = _pair(graph, value), value.producer()
    if maker is not None and maker.graph is graph:
        graph.insert_after(maker, nodes)
    else:
        graph.insert_before(graph[0], nodes)
    return nodes[-1].outputs[0]


def _pair(graph: ir.Graph, value: ir.Value) -> list[ir.Node]:
    down = ir.node("Cast", [value], attributes={"to": int(ir.DataType.FLOAT16)})
    up = ir.node("Cast", [down.outputs[0]], attributes={"to": int(ir.DataType.FLOAT)})
    for node, suffix in ((down, "down"), (up, "up")):
        node.outputs[0].name = fresh_name(graph, f"{value.name}_{suffix}")
    down.outputs[0].dtype, up.outputs[0].dtype = ir.DataType.FLOAT16, ir.DataType.FLOAT
    return [down, up]


def _round_result(node: ir.Node, value: ir.Value) -> None:
    """Give the rounded output the name, so that readers and observers get it."""
    graph = node.graph
    assert graph is not None
    name = value.name
    value.name = fresh_name(graph, f"{name}_unrounded")
    pair = _pair(graph, value)
    result = pair[-1].outputs[0]
    result.shape = value.shape
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    pair[0].replace_input_with(0, value)
    graph.insert_after(node, pair)
    result.name = name
