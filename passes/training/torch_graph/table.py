"""The table of ONNX operators that the executor knows, and what a builder of one is told.

An operator is a function from a `Site`, where its attributes are read once, to a function of
tensors that runs at every step. Adding one takes a function with `@op` in an `ops_*.py` file.
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
    """What layers that differ in training do; shared by all sites of a module.

    Attributes:
        training: whether the module trains now.
        batch_norm: frozen normalises by the stored statistics; trained by those of the batch, and
            moves the stored ones towards them.
        momentum: how far a batch moves the stored statistics.
        dropout: rate of every Dropout while training; what the graph says where None.
        observe: told the shift of each BatchNormalization that runs, and what arrives at it.
    """

    training: bool = False
    batch_norm: Literal["frozen", "trained"] = "frozen"
    momentum: float = 0.1
    dropout: float | None = None
    observe: Callable[[Tensor, Tensor], None] | None = None


@dataclass(frozen=True)
class Site:
    """One node, as the builder of its operator sees it.

    Attributes:
        op: operator type.
        name: of the node, for messages.
        version: of the operator set that the node is from.
        attributes: as Python values.
        inputs: for each input whether it is there.
        constants: values of the inputs that are known before the first run, by position.
        used: for each output whether anything reads it.
        mode: shared by all sites of the module.
        integers: for Q and DQ the smallest and the largest integer they may take; None where the
            input of a DequantizeLinear is a bias, which nothing rounds.
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
        """An attribute's value."""
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Whether an input is there."""
        return index < len(self.inputs) and self.inputs[index]

    def reads(self, index: int) -> bool:
        """Whether an output is used."""
        return index < len(self.used) and self.used[index]

    def refuse(self, what: str) -> ModelError:
        """The error for a form of the operator that cannot be trained."""
        return ModelError(
            f"{self.op} cannot be trained: {what}",
            where=f"node {self.name!r}",
            hint="Export or simplify the model so that it uses another form",
        )


@dataclass(frozen=True)
class Op:
    """One row of the table.

    Attributes:
        build: makes the function that runs, from a site.
        host: positions of inputs that are sizes or indices, wanted on the CPU; -1 and beyond
            counts all from the second on.
        to_host: whether the result is a size, which stays on the CPU.
    """

    build: Callable[[Site], Run]
    host: frozenset[int] = field(default_factory=frozenset)
    to_host: bool = False

    def wants_host(self, index: int) -> bool:
        """Whether an input is a size or an index."""
        return index in self.host or (-1 in self.host and index > 0)


OPS: dict[str, Op] = {}
#: A QuantizeLinear and the DequantizeLinear behind it, computed at once.
FUSED = "trimtab::FakeQuantize"


def op(
    *names: str, host: tuple[int, ...] = (), to_host: bool = False
) -> Callable[[Callable[[Site], Run]], Callable[[Site], Run]]:
    """Register a builder under operator names; other domains as `domain::name`."""

    def register(build: Callable[[Site], Run]) -> Callable[[Site], Run]:
        for name in names:
            OPS[name] = Op(build, frozenset(host), to_host)
        return build

    return register


@functools.cache
def operators() -> Mapping[str, Op]:
    """All operators: every `ops_*.py` of this folder imported."""
    folder = Path(__file__).parent
    for info in pkgutil.iter_modules([str(folder)]):
        if info.name.startswith("ops_"):
            importlib.import_module(f"{__package__}.{info.name}")
    return OPS


def key_of(domain: str, op_type: str) -> str:
    """An operator's name in the table."""
    return op_type if domain in {"", "ai.onnx"} else f"{domain}::{op_type}"


def integers(tensor: Tensor | None) -> list[int]:
    """A size or index tensor as Python integers."""
    if tensor is None:
        return []
    return [int(v) for v in tensor.reshape(-1).tolist()]
