"""Table of the supported ONNX operators, and the node specification that their builders get.

An operator is a function from a `NodeSpec`, where its attributes are read once, to a function of
tensors that runs at every step. Adding one takes a function with `@op` in a file of this folder.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from trimtab.core.errors import ModelError

Run = Callable[..., Any]


@dataclass
class Mode:
    """Mode of BatchNormalization and Dropout, shared by all nodes of a module.

    Attributes:
        training: true while the module trains.
        batch_norm: frozen normalises by the stored statistics; trained by those of the batch, and
            updates the stored ones.
        momentum: weight of a batch in the update of the stored statistics.
        dropout: rate of every Dropout in training; the graph's own where None.
        observe: callback with the shift and the input of each BatchNormalization that runs.
    """

    training: bool = False
    batch_norm: Literal["frozen", "trained"] = "frozen"
    momentum: float = 0.1
    dropout: float | None = None
    observe: Callable[[Tensor, Tensor], None] | None = None


@dataclass(frozen=True)
class NodeSpec:
    """Specification of one node for the builder of its operator.

    Attributes:
        op: operator type.
        name: name of the node, for messages.
        version: version of its operator set.
        attributes: attributes as Python values.
        inputs: true for each input that is present.
        constants: values of constant inputs, by position.
        used: true for each output that is used.
        mode: mode shared by all nodes of the module.
        integers: smallest and largest integer of a Q or DQ; None where the input of a
            DequantizeLinear is a bias, which is not rounded in training.
        weight: true where a Q or DQ stands for a trained integer weight.
    """

    op: str
    name: str
    version: int
    attributes: Mapping[str, Any]
    inputs: tuple[bool, ...]
    constants: Mapping[int, Tensor]
    used: tuple[bool, ...]
    mode: Mode
    integers: tuple[int, int] | None = None
    weight: bool = False

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value."""
        return self.attributes.get(name, default)

    def sizes(self, name: str, tensor: Tensor | None = None) -> list[int]:
        """Return integers that are an attribute in old operator sets and an input in new ones."""
        return integers(tensor) if tensor is not None else list(self.get(name) or ())

    def has(self, index: int) -> bool:
        """Return whether an input is present."""
        return index < len(self.inputs) and self.inputs[index]

    def uses(self, index: int) -> bool:
        """Return whether an output is used."""
        return index < len(self.used) and self.used[index]

    def refuse(self, what: str) -> ModelError:
        """Return the error for a variant of the operator that cannot be trained."""
        return ModelError(
            f"{self.op} cannot be trained: {what}",
            where=f"node {self.name!r}",
            hint="Export or simplify the model so that it uses another variant",
        )


@dataclass(frozen=True)
class OperatorEntry:
    """Entry of the operator table.

    Attributes:
        build: builder of the function that runs.
        host: positions of inputs that are sizes or indices, needed on the CPU.
        to_host: true where the result is a size, which stays on the CPU.
    """

    build: Callable[[NodeSpec], Run]
    host: frozenset[int] = field(default_factory=frozenset)
    to_host: bool = False


OPS: dict[str, OperatorEntry] = {}
#: Key of a QuantizeLinear and its DequantizeLinear, computed at once.
FUSED = "trimtab::FakeQuantize"


def op(
    *names: str, host: tuple[int, ...] = (), to_host: bool = False
) -> Callable[[Callable[[NodeSpec], Run]], Callable[[NodeSpec], Run]]:
    """Register a builder under operator names; other domains as `domain::name`."""

    def register(build: Callable[[NodeSpec], Run]) -> Callable[[NodeSpec], Run]:
        for name in names:
            OPS[name] = OperatorEntry(build, frozenset(host), to_host)
        return build

    return register


def register_functions(functions: Mapping[str, Run], host: tuple[int, ...] = ()) -> None:
    """Register operators that are functions of their inputs, whatever their attributes."""
    for name, function in functions.items():

        def build(_: NodeSpec, function: Run = function) -> Run:
            return function

        op(name, host=host)(build)


@functools.cache
def supported_operators() -> Mapping[str, OperatorEntry]:
    """Return the table of all operators, importing every file of this folder."""
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{info.name}")
    return OPS


def key_of(domain: str, op_type: str) -> str:
    """Return an operator's key in the table."""
    return op_type if domain in {"", "ai.onnx"} else f"{domain}::{op_type}"


def integers(tensor: Tensor) -> list[int]:
    """Convert a size or index tensor to Python integers."""
    return [int(v) for v in tensor.reshape(-1).tolist()]
