"""Models: an ONNX graph in memory together with its lineage."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir

from .errors import ModelError, OutputError
from .files import STDOUT, atomic_folder, behind_links, file_for, is_stream, publish, write_bytes
from .garbage import gc_paused
from .graphs import free_axes, repair, subgraphs_of
from .lineage import Step, take_lineage, with_lineage
from .load import load_ir, refuse_external_data, to_ir
from .maps import is_map
from .messages import Shell, as_stored, has_external_weights, shell_of, with_weights_in_memory
from .sparse import sparsify, stores_sparse
from .text import shape_text
from .timings import stage

_log = logging.getLogger("onnx_ir")
if _log.level == logging.NOTSET:  # each pass of its own that it runs logs a line
    _log.setLevel(logging.WARNING)
#: protobuf refuses messages of 2 GB; more weight bytes than this go to a separate file.
EXTERNAL_DATA_BYTES = 1_900_000_000
#: Most bytes that a model which does not change keeps of itself.
FIXED_BYTES = 64 << 20


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape of a graph input or output.

    `shape` holds an int for a fixed size, a name for a symbolic one, None for an unknown one;
    the whole shape is None where the rank is unknown.
    """

    name: str
    dtype: onnx_ir.DataType
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        return f"{self.name}: {shape_text(self.shape)} {self.type_name}"

    def takes_type(self, kind: np.dtype[Any]) -> bool:
        """Return whether an array of this type can be fed; of texts also one of fixed length."""
        texts = self.dtype == onnx_ir.DataType.STRING and kind.kind == "U"
        return texts or kind == self.dtype.numpy()

    @property
    def type_name(self) -> str:
        """Name of the element type as numpy writes it: `float32`, not ONNX's `float`."""
        name = self.dtype.name.lower()
        return {"float": "float32", "double": "float64"}.get(name, name)


@dataclass
class _Facts:
    """Facts about a model that does not change, each None until it was asked for."""

    file: bytes | None = None
    weight_bytes: int | None = None
    operators: frozenset[str] | None = None
    shell: Shell | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """ONNX model and its lineage. Never changed in place: a pass gets a clone.

    Attributes:
        ir: the graph; treat it as read-only unless the model came from `clone`.
        lineage: steps that produced it, oldest first.
        name: origin of the model, for messages.
    """

    ir: onnx_ir.Model
    lineage: tuple[Step, ...] = ()
    name: str = "model"
    #: What is known of a model that does not change; None where it may change.
    _fixed: _Facts | None = field(default=None, init=False, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read an `.onnx` file, with its external data if it has any.

        Raises:
            ModelError: the file does not exist, is not ONNX, is truncated or invalid, or its
                external data is missing, too short, or outside of the model's folder.
        """
        path = Path(path)
        with stage("reading model files"):
            return cls._from_ir(load_ir(path), str(path))

    @classmethod
    def of(cls, source: Model | str | Path) -> Model:
        """Return the model that a user passes: itself, or one to `load`."""
        return source if isinstance(source, Model) else cls.load(source)

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, name: str = "model") -> Model:
        """Make a model from a protobuf message of another ONNX tool.

        Raises:
            ModelError: the message is not a valid model, or refers to data in another file.
        """
        refuse_external_data(proto, name)
        return cls._from_ir(to_ir(proto, name), name)

    @classmethod
    def _from_ir(cls, model: onnx_ir.Model, name: str) -> Model:
        # Lineage is kept in its field alone; a second copy in the graph would become stale.
        lineage = take_lineage(model)
        _check_types(model, name)
        free_axes(model)
        repair(model)
        return cls(model, lineage, name)

    @gc_paused()
    def clone(self) -> Model:
        """Copy the model so that its graph may be changed; weights are shared, never write them."""
        return replace(self, ir=self.ir.clone())

    @stage("serialising models")
    @gc_paused()
    def to_proto(self) -> onnx.ModelProto:
        """Return the model as one protobuf message, with lineage and dense weights.

        Raises:
            ModelError: the weights do not fit in one message; save the model to a file instead.
        """
        if self.weight_bytes > EXTERNAL_DATA_BYTES:
            raise ModelError(
                "holds more than 2 GB of weights and cannot become one message",
                where=self.name,
                hint="Work on a file with external data",
            )
        if not has_external_weights(self.ir):
            return as_stored(onnx_ir.to_proto(with_lineage(self.ir, self.lineage)))
        # A message that names an external file would be read from another folder.
        loaded = with_weights_in_memory(with_lineage(self.ir.clone(), self.lineage))
        proto = onnx_ir.to_proto(loaded)
        # A graph is a reference cycle and stays until it is collected; its weights need not.
        for value in loaded.graph.initializers.values():
            value.const_value = None
        return as_stored(proto)

    def to_bytes(self) -> bytes:
        """Return the bytes that `save` writes; the same model gives the same bytes.

        Only here weights become sparse, where the model asks for it: other tools lose them.
        """
        if self._fixed is not None and self._fixed.file is not None:
            return self._fixed.file
        proto = self.to_proto()
        if stores_sparse(self.ir):
            sparsify(proto)
        made = bytes(proto.SerializeToString(deterministic=True))
        if self._fixed is not None and len(made) <= FIXED_BYTES:
            self._fixed.file = made
        return made

    @gc_paused()
    def to_shell(self, least: int) -> Shell:
        """Return the message without what initializers of so many bytes hold, and that by name."""
        if self._fixed is not None and self._fixed.shell is not None:
            return self._fixed.shell
        with stage("serialising models"):
            made = shell_of(self.ir, least)
        if self._fixed is not None:
            self._fixed.shell = made
        return made

    def fixed(self) -> Model:
        """Return a model of the same graph that is serialised once: the graph must not change.

        Its clones may be changed, and so may what `dataclasses.replace` makes of it.
        """
        if self._fixed is not None:
            return self
        made = replace(self)
        object.__setattr__(made, "_fixed", _Facts())
        if "digest" in self.__dict__:
            made.__dict__["digest"] = self.digest
        return made

    def save(self, path: str | Path) -> Path:
        """Write to `path`, whole or not at all; weights above 2 GB go to `<name>.data` beside it.

        A folder gets a file of the model's name; a device, a pipe and `-` (standard output) get the
        bytes; a link stays, and the file behind it is replaced. Returns the path of the file.

        Raises:
            OutputError: the file cannot be written.
        """
        given = file_for(path, self.file_name)
        if self.weight_bytes <= EXTERNAL_DATA_BYTES:
            write_bytes(given, self.to_bytes())
            return given
        if str(given) in STDOUT or is_stream(given):
            what = "more than 2 GB of weights need a second file, which has no place beside it"
            raise OutputError(what, where=str(given), hint="Choose a file with -o")
        path = behind_links(given)
        with atomic_folder(path.parent) as scratch:
            self.spill(scratch, path.name)
            # The data file first: a model must never name a file that is not there yet.
            data = path.name + ".data"
            publish(scratch / data, path.parent / data)
            publish(scratch / path.name, path)
        return given

    @property
    def file_name(self) -> str:
        """Name of a file for the model: that of the file it came from, where there is one."""
        name = Path(self.name).name
        return name if name.endswith(".onnx") else f"{re.sub('[^A-Za-z0-9._-]+', '-', name)}.onnx"

    def spill(self, folder: Path, name: str = "model.onnx") -> Path:
        """Write to a temporary folder, weights in a separate file: one at a time is in memory."""
        path = folder / name
        copy = with_lineage(self.clone().ir, self.lineage)
        onnx_ir.save(copy, path, external_data=path.name + ".data")
        return path

    @property
    def graph(self) -> onnx_ir.Graph:
        """Main graph."""
        return self.ir.graph

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that a caller feeds: those without an initializer."""
        return tuple(_spec(v) for v in self.graph.inputs if v.name not in self.graph.initializers)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Graph outputs, in order."""
        return tuple(_spec(v) for v in self.graph.outputs)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.ir.opset_imports.get("", 1)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all initializers and Constant nodes, those of subgraphs included."""
        known = self._fixed or _Facts()
        if known.weight_bytes is None:
            known.weight_bytes = sum(tensor.nbytes for tensor in self.constant_tensors())
        return known.weight_bytes

    def constant_tensors(self) -> Iterator[onnx_ir.TensorProtocol]:
        """Yield the tensors of all initializers and Constant nodes, subgraphs included."""
        waiting = [self.graph]  # onnx_ir's own traversal takes several times as long
        while waiting:
            graph = waiting.pop()
            values = graph.initializers.values()
            yield from (v.const_value for v in values if v.const_value is not None)
            for node in graph:
                value = node.attributes.get("value") if node.op_type == "Constant" else None
                if value is not None and value.type == onnx_ir.AttributeType.TENSOR:
                    yield value.value
                waiting.extend(subgraphs_of(node))

    @property
    def size_bytes(self) -> int:
        """Bytes of the file that `save` writes, external data included."""
        if self.weight_bytes <= EXTERNAL_DATA_BYTES:
            return len(self.to_bytes())
        return self.weight_bytes

    @functools.cached_property
    @gc_paused()
    def digest(self) -> str:
        """SHA-256 of graph and weights, without lineage and producer: equal for equal models."""
        bare = replace(self, lineage=()).ir.clone()
        # A file lists sparse weights apart from dense ones, so their order must not count.
        weights = sorted(bare.graph.initializers.items())
        bare.graph.initializers.clear()
        bare.graph.initializers.update(weights)
        digest = hashlib.sha256()
        # One weight at a time: a message of all would be a second copy of them.
        for name, value in weights:
            tensor = value.const_value
            if tensor is None or tensor.dtype == onnx_ir.DataType.STRING:
                continue
            digest.update(f"{name}:{tensor.dtype}:{tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
            value.const_value = onnx_ir.tensor([0], name=name)
        onnx_ir.external_data.load_to_model(bare)
        digest.update(onnx_ir.to_proto(bare).SerializeToString(deterministic=True))
        return digest.hexdigest()

    @property
    def operators(self) -> frozenset[str]:
        """Types of all operators, whatever their domain."""
        known = self._fixed or _Facts()
        if known.operators is None:
            known.operators = frozenset(node.op_type for node in self.nodes())
        return known.operators

    def nodes(self) -> Iterable[onnx_ir.Node]:
        """Return all nodes, those of subgraphs included."""
        return self.graph.all_nodes()

    def __repr__(self) -> str:
        steps = " > ".join(step.pass_name for step in self.lineage) or "as given"
        return f"Model({self.name}, {self.graph.num_nodes()} nodes, {steps})"


def _check_types(model: onnx_ir.Model, name: str) -> None:
    """Refuse inputs that are not tensors."""
    for value in model.graph.inputs:
        if isinstance(value.type, (onnx_ir.SequenceType, onnx_ir.OptionalType)) or is_map(value):
            kind = "sequence" if isinstance(value.type, onnx_ir.SequenceType) else "optional"
            kind = "map" if is_map(value) else kind
            raise ModelError(
                f"its input {value.name!r} is of the type {kind}; inputs of tensors alone are "
                "supported",
                where=name,
                hint="Export the model with a tensor for each element",
            )


def _spec(value: onnx_ir.Value) -> TensorSpec:
    shape = value.shape
    dims = None if shape is None else tuple(d if isinstance(d, int) else d.value for d in shape)
    return TensorSpec(value.name or "", value.dtype or onnx_ir.DataType.UNDEFINED, dims)
