"""Judge of a pass on a random graph: what rounding explains, and no more.

An exact pass must give the same numbers. For int8 the bound of each output is the error of the same
graph with every float tensor rounded to 8 bits by plain arithmetic, written here without any of the
code under test: a lost Relu, a wrong factor or a swapped weight is far above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from hypothesis import assume
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from validity import Error, Feeds, Outputs, output_errors, run_rows

#: Relative errors above which 8 bits are too few for an output: it is not judged.
TOO_ROUGH: Error = (0.1, 0.25)
#: Multiple of the error of plain rounding that a pass may have, and what it may have anyway.
FACTOR = 4.0
FLOOR: Error = (0.03, 0.1)
#: Operators whose constants are sizes.
RESIZES = {"Resize", "Upsample"}


def reference(proto: onnx.ModelProto, feeds: Feeds) -> Outputs:
    """Return the float model's outputs; reject a graph on which float itself is unstable."""
    plain, fused = (run_rows(proto, feeds, level) for level in ("off", "all"))
    assume(all(np.isfinite(a).all() and np.abs(a).max(initial=0) < 1e5 for a in plain.values()))
    assume(all(np.abs(a).max(initial=0) > 1e-4 for a in plain.values()))
    assume(all(max(error) < 1e-5 for error in output_errors(plain, fused).values()))
    return plain


def rounding_bounds(
    proto: onnx.ModelProto, feeds: Feeds, expected: Outputs, *, weights_only: bool = False
) -> dict[str, Error]:
    """Return how far each output may be off; an output that 8 bits cannot hold has no bounds."""
    rounded = _with_rounded_weights(proto)
    fed = dict(feeds)
    if not weights_only:
        _insert_rounding(rounded.graph, _steps(proto, feeds))
        fed = {n: _rounded(a) if a.dtype == np.float32 else a for n, a in feeds.items()}
    found = output_errors(expected, run_rows(rounded, fed, "off"))
    return {
        name: (max(FACTOR * mean, FLOOR[0]), max(FACTOR * peak, FLOOR[1]))
        for name, (mean, peak) in found.items()
        if mean < TOO_ROUGH[0] and peak < TOO_ROUGH[1]
    }


def _with_rounded_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    nodes = [n for n in copy.graph.node if n.op_type == "Constant"]
    held = [(n.output[0], a.t) for n in nodes for a in n.attribute if a.name == "value"]
    sizes = {name for node in copy.graph.node if node.op_type in RESIZES for name in node.input[1:]}
    for name, tensor in [*((t.name, t) for t in copy.graph.initializer), *held]:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim and name not in sizes:
            tensor.CopyFrom(numpy_helper.from_array(_rounded(array), tensor.name))
    return copy


def _steps(proto: onnx.ModelProto, feeds: Feeds) -> dict[str, float]:
    """Return the step of 8 bits over the span of each float tensor that a node makes."""
    made = [n for node in proto.graph.node if node.op_type != "Constant" for n in node.output if n]
    looking = onnx.ModelProto()
    looking.CopyFrom(proto)
    del looking.graph.output[:]
    looking.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    values = run_rows(looking, feeds, "off")
    return {n: _step(a) for n, a in values.items() if a.dtype == np.float32 and a.size}


def _step(array: NDArray[Any]) -> float:
    return max(float(max(array.max(), 0) - min(array.min(), 0)) / 255, 1e-9)


def _rounded(array: NDArray[Any]) -> NDArray[np.float32]:
    step = _step(array)
    rounded: NDArray[np.float32] = (np.floor(array / step + 0.5) * step).astype(np.float32)
    return rounded


def _insert_rounding(graph: onnx.GraphProto, steps: Mapping[str, float]) -> None:
    """Round tensors behind the nodes that make them; readers, captures and outputs read that."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        rounding = []
        for index, name in enumerate(node.output):
            if name in steps:
                node.output[index] = f"{name}//exact"
                rounding += _rounding(graph, name, steps[name])
        graph.node.extend([node, *rounding])


def _rounding(graph: onnx.GraphProto, name: str, step: float) -> list[onnx.NodeProto]:
    # Operators that every opset has.
    for suffix, number in (("step", step), ("half", 0.5)):
        tensor = helper.make_tensor(f"{name}//{suffix}", TensorProto.FLOAT, [], [number])
        graph.initializer.append(tensor)
        graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, []))
    return [
        helper.make_node("Div", [f"{name}//exact", f"{name}//step"], [f"{name}//steps"]),
        helper.make_node("Add", [f"{name}//steps", f"{name}//half"], [f"{name}//above"]),
        helper.make_node("Floor", [f"{name}//above"], [f"{name}//whole"]),
        helper.make_node("Mul", [f"{name}//whole", f"{name}//step"], [name]),
    ]
