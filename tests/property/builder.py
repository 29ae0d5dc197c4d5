"""The random graph so far, the draws that go on with it, and its nodes, names and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

#: Endings that quantizers and converters give to names of tensors.
ENDINGS = ("_quantized", "_scale", "_zero_point", "_transposed", "_QuantizeLinear_Output", "_DQ")
#: Names that need care in JSON, in file names and on a terminal.
STRANGE = ("a/b c", 'say "x"', "{y}", "Grüße", "w;v", "100%")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """A float tensor of the graph: its name, and its shape without the batch in front."""

    name: str
    shape: Shape


class RandomGraph:
    """A model and the rows that it is calibrated and judged on."""

    def __init__(self, proto: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> None:
        self.proto, self.feeds = proto, feeds

    def __repr__(self) -> str:
        return str(onnx.printer.to_text(self.proto))


@dataclass
class Builder:
    """The graph so far, and the draws that go on with it."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    opset: int
    batch: int | str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    pool: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def pick(self, options: Sequence[Any]) -> Any:
        """Draw one of these; the first is the simplest."""
        return self.draw(st.sampled_from(list(options)))

    def chance(self, percent: int) -> bool:
        """Draw true in so many of 100 cases; false is simpler."""
        return bool(self.draw(st.integers(0, 99)) >= 100 - percent)

    def name(self, stem: str) -> str:
        """Return a new name of a tensor, now and then one like those that tools give."""
        plain = next(f"{stem}{i}" for i in range(1000) if f"{stem}{i}" not in self.taken)
        if self.taken and self.chance(8):
            other = self.pick(sorted(self.taken)) + self.pick(ENDINGS)
            plain = plain if other in self.taken else other
        if self.chance(3):
            other = self.pick(STRANGE)
            plain = plain if other in self.taken else other
        self.taken.add(plain)
        return plain

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or a list of names."""
        names = [self.name("t") for _ in range(outputs)]
        title = f"{op.lower()}_{len(self.nodes)}" if self.chance(80) else ""
        self.nodes.append(helper.make_node(op, list(inputs), names, name=title, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array: Any) -> str:
        """Add numbers as an initializer or as a node."""
        array = np.asarray(array)
        name = self.name("k")
        if self.chance(10) and (self.opset >= 9 or array.dtype == np.float32):
            value = numpy_helper.from_array(array, name)
            self.nodes.append(helper.make_node("Constant", [], [name], value=value))
        else:
            self.weights[name] = array
        return name

    def weight(self, *shape: int, fan_in: int = 1) -> str:
        """Return a float weight, now and then one that is there already or behind a node."""
        floats = {n: a for n, a in self.weights.items() if a.dtype == np.float32}
        same = [n for n, a in floats.items() if a.shape == shape]
        if same and self.chance(15):
            return str(self.pick(same))
        turned = [n for n, a in floats.items() if len(shape) == 2 and a.shape == shape[::-1]]
        if turned and self.chance(10):
            return self.transpose(self.pick(turned), 1, 0)
        rng = np.random.default_rng(sum(shape) + len(self.weights))
        array = (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
        if len(shape) == 2 and self.chance(6):
            return str(self.node("Transpose", [self.constant(array.T.copy())], perm=[1, 0]))
        if len(shape) > 1 and self.chance(6):
            return str(self.reshape(self.constant(array.ravel()), shape))
        return self.constant(array)

    def fed(self, *shape: int) -> Tensor:
        """Return an input of rows of this shape, a new one or one that is there already."""
        same = [t for t in self.inputs if t.shape == shape]
        if not same or self.chance(20):
            same = [Tensor(self.name("in"), shape)]
            self.inputs += same
        return same[0]

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """Add a Reshape."""
        return str(self.node("Reshape", [name, self.constant(np.array(shape, np.int64))]))

    def axes_node(self, op: str, name: str, axes: list[int], since: int, **more: Any) -> str:
        """Add a node whose axes are an attribute before an opset and an input from it on."""
        if self.opset < since:
            return str(self.node(op, [name], axes=axes, **more))
        return str(self.node(op, [name, self.constant(np.array(axes, np.int64))], **more))

    def transpose(self, name: str, *perm: int) -> str:
        """Add a Transpose."""
        return str(self.node("Transpose", [name], perm=list(perm)))
