"""Shape and type inference of a graph, its subgraphs included."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from .queries import is_onnx_op

#: Operators whose outputs are maps: onnx_ir reads nothing of a message that holds such a type.
_MAP_MAKERS = frozenset({"ZipMap"})
_UNKNOWN = "_without_schema"
_Declared = tuple[ir.TypeProtocol | None, ir.Shape | None]


def infer_shapes(model: ir.Model) -> None:
    """Infer types and shapes of all tensors in place; what cannot be inferred stays unknown.

    onnx_ir gives a sequence or an optional the type of its elements; their own is put back.
    """
    containers = {
        value: (value.type, value.shape)
        for node in model.graph.all_nodes()
        for value in node.outputs
        if isinstance(value.type, ir.SequenceType | ir.OptionalType)
    }
    with _without_schemas(model, _MAP_MAKERS):
        ShapeInferencePass()(model)
    _restore_containers(model.graph, containers)


@contextlib.contextmanager
def _without_schemas(model: ir.Model, ops: Collection[str]) -> Iterator[None]:
    """Give operators a name that ONNX does not know for a while, so that it infers nothing."""
    nodes = [node for node in model.graph.all_nodes() if node.op_type in ops]
    try:
        for node in nodes:
            node.op_type += _UNKNOWN
        yield
    finally:
        for node in nodes:
            node.op_type = node.op_type.removesuffix(_UNKNOWN)


def _restore_containers(graph: ir.Graph, known: Mapping[ir.Value, _Declared]) -> None:
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _restore_containers(attribute.as_graph(), known)
        for index, value in enumerate(node.outputs):
            if value in known:
                value.type, value.shape = known[value]
            elif (kind := _container(node, index, value)) is not None:
                value.type, value.shape = kind, None


def forget_shapes(model: ir.Model) -> None:
    """Remove in place the types and shapes of inner tensors that inference finds again.

    Small files consist of them to a tenth. Fixed sizes that inference does not find stay.
    """
    bare = model.clone()
    for value in _inner_values(bare):
        value.type = value.shape = None
    infer_shapes(bare)
    for value, found in zip(_inner_values(model), _inner_values(bare), strict=True):
        if found.type == value.type and _tells(found.shape, value.shape):
            value.type = value.shape = None


def _inner_values(model: ir.Model) -> list[ir.Value]:
    values = (value for node in model.graph.all_nodes() for value in node.outputs)
    return [value for value in values if not value.is_graph_output()]


def _tells(found: ir.Shape | None, known: ir.Shape | None) -> bool:
    """Return whether an inferred shape has the rank and the fixed sizes of a known one."""
    if known is None:
        return True
    return (
        found is not None
        and len(found) == len(known)
        and all(not isinstance(k, int) or f == k for f, k in zip(found, known, strict=True))
    )


def _container(node: ir.Node, index: int, value: ir.Value) -> ir.TypeProtocol | None:
    """Return the type of an output that is a sequence or an optional of tensors.

    Its schema tells, or what it hands on: the output of a body, or the input of an Identity.
    """
    source = _handed_on(node, index)
    if source is not None and isinstance(source.type, ir.SequenceType | ir.OptionalType):
        return source.type
    kinds = output_types(node, index)
    if not isinstance(value.type, ir.TensorType) or any(k.startswith("tensor") for k in kinds):
        return None
    if kinds and all(kind.startswith("seq(") for kind in kinds):
        return ir.SequenceType(value.type)
    if kinds and all(kind.startswith("optional(") for kind in kinds):
        return ir.OptionalType(value.type)
    return None


def _handed_on(node: ir.Node, index: int) -> ir.Value | None:
    """Return the value whose type an output of an If, a Loop or an Identity has."""
    if not is_onnx_op(node):
        return None
    if node.op_type == "Identity":
        return node.inputs[0]
    name, first = {"If": ("then_branch", 0), "Loop": ("body", 1)}.get(node.op_type, ("", 0))
    if name not in node.attributes:
        return None
    made = node.attributes[name].as_graph().outputs
    return made[first + index] if first + index < len(made) else None


def output_types(node: ir.Node, index: int) -> frozenset[str]:
    """Return the types that an output may have by the schema; none for an unknown operator.

    They are spelt as in `tensor(float)` or `seq(tensor(float))`.
    """
    version = node.graph.opset_imports.get("", 1) if node.graph is not None else 1
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "") if is_onnx_op(node) else None
    except onnx.defs.SchemaError:
        return frozenset()
    if schema is None or not schema.outputs:
        return frozenset()
    return frozenset(schema.outputs[min(index, len(schema.outputs) - 1)].types)
