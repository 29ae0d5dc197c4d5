"""What every model that a pass writes must hold, whatever it was made from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from trimtab.core.maps import as_array
from trimtab.core.model import Model
from trimtab.core.ort.session import EXACT_INT8
from trimtab.core.ort.shared_weights import split_shared_weights
from trimtab.core.target import Target

Feeds = Mapping[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]
#: Relative errors of an output: of its root mean square, and of its largest element.
Error = tuple[float, float]
LEVELS = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
STANDARD = {"", "ai.onnx"}


def session(model: onnx.ModelProto, level: str = "all", threads: int = 1) -> ort.InferenceSession:
    """Return a session whose 8-bit sums do not saturate, whatever this machine is."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    if not Target.detect().vnni:  # exact sums fail where weights are shared
        options.add_session_config_entry(EXACT_INT8, "1")
        model = split_shared_weights(Model.from_proto(model)).to_proto()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_rows(model: onnx.ModelProto, feeds: Feeds, level: str = "all", threads: int = 1) -> Outputs:
    """Return the outputs for all rows, in batches of the size that the model was declared with."""
    made = session(model, level, threads)
    first, names = made.get_inputs()[0], [o.name for o in made.get_outputs()]
    rows = len(feeds[first.name])
    size = first.shape[0] if isinstance(first.shape[0], int) else rows
    parts = [
        list(map(as_array, made.run(names, {n: _part(a, i, size) for n, a in feeds.items()})))
        for i in range(0, rows, size)
    ]
    # An output that does not depend on the rows, such as a weight, is the same in every part.
    alike = [
        len(column[0]) == size if column[0].ndim else False for column in zip(*parts, strict=True)
    ]
    columns = zip(names, alike, zip(*parts, strict=True), strict=True)
    return {n: np.concatenate(column) if many else column[0] for n, many, column in columns}


def _part(array: NDArray[Any], start: int, size: int) -> NDArray[Any]:
    return array[start : start + size] if array.ndim else array


def output_errors(expected: Outputs, got: Outputs) -> dict[str, Error]:
    """Return the relative errors of each output; places of NaN and infinity count as they are."""
    found = {}
    for name, array in expected.items():
        assert got[name].shape == array.shape, (
            f"output {name!r}: {got[name].shape}, not {array.shape}"
        )
        if array.dtype.kind not in "fiub":  # texts
            found[name] = (float((array != got[name]).any()),) * 2
            continue
        a, b = array.astype(np.float64), got[name].astype(np.float64)
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, a - b)
        finite = a[np.isfinite(a)]
        scale = max(float(np.sqrt((finite**2).mean())) if finite.size else 0.0, 1e-6)
        peak = max(float(np.abs(finite).max(initial=0.0)), 1e-6)
        mean = float(np.sqrt((gap**2).mean())) / scale if gap.size else 0.0
        found[name] = (mean, float(np.abs(gap).max(initial=0.0)) / peak)
    return found


def assert_within(expected: Outputs, got: Outputs, bounds: Mapping[str, Error], what: str) -> None:
    """Hold each output against its bounds; an output that has none may be anything finite."""
    for name, (mean, peak) in output_errors(expected, got).items():
        assert math.isfinite(mean), f"{what}: output {name!r} is not finite everywhere"
        if name in bounds:
            most_mean, most_peak = bounds[name]
            assert mean <= most_mean, (
                f"{what}: output {name!r} is off by {mean:.3g} > {most_mean:.3g}"
            )
            assert peak <= most_peak, (
                f"{what}: an element of output {name!r} is off by {peak:.3g} > {most_peak:.3g}"
            )


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                yield from graphs_of(inner)


def assert_valid(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Check the ONNX rules in full, the interface, names of nodes, and scales of biases."""
    domains = {entry.domain for entry in after.opset_import}
    onnx.checker.check_model(after, full_check=domains <= STANDARD)
    assert interface(after) == interface(before)
    names = Counter(node.name for graph in graphs_of(after.graph) for node in graph.node)
    twice = [name for name, count in names.items() if name and count > 1]
    had = Counter(node.name for graph in graphs_of(before.graph) for node in graph.node)
    assert not [name for name in twice if had[name] < 2], f"two nodes have the name {twice}"
    for graph in graphs_of(after.graph):
        _assert_scales_fit(graph)


def interface(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Return names with types and axes of inputs and outputs; weights are not inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    return [
        (value.name, f"{value.type.tensor_type.elem_type} {_axes(value)}")
        for value in [*inputs, *model.graph.output]
    ]


def _axes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]


def _assert_scales_fit(graph: onnx.GraphProto) -> None:
    """Check that constants are dequantized by one scale, or by one for each slice of their axis."""
    sizes = {t.name: numpy_helper.to_array(t).shape for t in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or not {*node.input[:2]} <= set(sizes):
            continue
        shape, scales = sizes[node.input[0]], sizes[node.input[1]]
        attributes = {a.name: a.i for a in node.attribute}
        if attributes.get("block_size") or math.prod(scales) == 1:
            continue
        axis = attributes.get("axis", 1)
        assert shape[axis] == scales[0], f"{node.name}: {scales} scales for {shape} along {axis}"
