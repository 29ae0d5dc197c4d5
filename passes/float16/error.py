"""Error of float16, simulated in float32: each output and weight is rounded to float16 and back.

So the error on any machine is that of a GPU, which keeps tensors in float16 and sums in float32.
The CPU has few float16 kernels; most nodes would silently run in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array, Batch, Floats32
from trimtab.core.metrics.split_detector import JudgedOutputs
from trimtab.core.model import Model
from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.session import Outputs, SessionConfig, build_session, run

from ..graph.edit import add_initializer
from ..graph.names import fresh_name, share_names
from ..graph.queries import const, is_float

#: Names of nodes that are float16.
NodeNames = Collection[str | None]
#: Values that are compared at a time, in double precision.
CHUNK = 1 << 16


@dataclass(frozen=True)
class Float16Error:
    """Errors of float16, relative to the root mean square of the tensor.

    Attributes:
        output: error of the worst output; infinite where float16 overflows.
        nodes: error of each node's output, by name.
    """

    output: float
    nodes: Mapping[str, float]


class Float16Trials:
    """Trials of a float32 model with some of its nodes in float16, on batches that stay in memory.

    The answers of the model itself are computed once. A trial ends as soon as it overflows.

    Args:
        model: the float32 model.
        batches: samples.
    """

    def __init__(self, model: Model, batches: Sequence[Batch]) -> None:
        self.model, self.batches = model, batches
        tensors = [v for v in model.graph.outputs if isinstance(v.type, ir.TensorType)]
        self._all = [str(value.name) for value in tensors]
        self._outputs = [str(value.name) for value in tensors if is_float(value)]
        self._exact: list[Outputs] = []
        self._judged: JudgedOutputs | None = None

    def error(self, half: NodeNames) -> float:
        """Return the error of the worst output with these nodes in float16."""
        if not self._exact:
            self._exact = list(self._runs(self.model, ()))
        return self._compare(self._exact, half, self._outputs).worst(self._outputs)

    def errors(self, half: NodeNames) -> Float16Error:
        """Return the errors of the outputs and of each of these nodes in float16."""
        inner = {n.name or "": _float_output(n) for n in self.model.graph if n.name in half}
        watched = list(dict.fromkeys([*self._outputs, *inner.values()]))
        exact = self._remembering(self._runs(self.model, watched))
        sums = self._compare(exact, half, watched)
        nodes = {node: sums.error(value) for node, value in inner.items()}
        return Float16Error(sums.worst(self._outputs), nodes)

    def _remembering(self, runs: Iterable[Outputs]) -> Iterator[Outputs]:
        """Yield runs of the model itself and keep its outputs."""
        self._exact = []
        for found in runs:
            self._exact.append({name: found[name] for name in self._all})
            yield found

    def _runs(self, model: Model, watched: Sequence[str]) -> Iterator[Outputs]:
        """Yield all tensors that the model gives, and those that are watched."""
        names = list(dict.fromkeys([*self._all, *watched]))
        config = SessionConfig.for_inner_tensors("off")
        session = build_session(with_outputs(model, names), config)
        return (run(session, batch.feeds, names) for batch in self.batches)

    def _compare(self, exact: Iterable[Outputs], half: NodeNames, watched: Sequence[str]) -> _Sums:
        sums = _Sums(watched)
        rounded = self._runs(_rounding(self.model, half), watched)
        alone = set(watched) <= set(self._outputs)
        for expected, got in zip(exact, rounded, strict=True):
            sums.add(expected, self._in_order(expected, got))
            if alone and not np.isfinite(sums.worst(watched)):
                break  # no later batch changes that
        return sums

    def _in_order(self, expected: Outputs, got: Outputs) -> Mapping[str, Array]:
        """Return outputs with lists of detections in the order of those that are expected."""
        if self._judged is None:
            self._judged = JudgedOutputs.of(self.model, self._exact[:1])
        return self._judged.in_order_of(expected, got)


class _Sums:
    """Sums of squares of errors and of the exact values, by tensor."""

    def __init__(self, names: Sequence[str]) -> None:
        self.noise, self.size = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)

    def add(self, expected: Outputs, got: Mapping[str, Array]) -> None:
        """Add a batch; what has another shape is wrong as a whole."""
        for name in self.noise:
            alike = expected[name].shape == got[name].shape
            mine = got[name] if alike else np.zeros_like(expected[name])
            noise, size = _squares(expected[name].reshape(-1), mine.reshape(-1))
            self.noise[name] += noise if np.isfinite(noise) else np.inf
            self.size[name] += size

    def error(self, name: str) -> float:
        """Return the relative error of a tensor."""
        noise, size = self.noise[name], self.size[name]
        return float(np.sqrt(noise / size)) if size else float(noise > 0)

    def worst(self, names: Sequence[str]) -> float:
        """Return the largest relative error of some tensors."""
        return max(map(self.error, names), default=0.0)


def _squares(exact: Floats32, got: Floats32) -> tuple[float, float]:
    """Return the sums of squares of the error and of the exact values where those are finite."""
    noise = size = 0.0
    for start in range(0, len(exact), CHUNK):
        a = exact[start : start + CHUNK].astype(np.float64)
        b = got[start : start + CHUNK].astype(np.float64)
        finite = np.isfinite(a)
        if not finite.all():
            a, b = a[finite], b[finite]
        size += float(a @ a)
        b -= a
        noise += float(b @ b)
    return noise, size


def _float_output(node: ir.Node) -> str:
    """Return the name of the first float32 output that is not left out."""
    return next(str(v.name) for v in node.outputs if v.name and is_float(v))


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
