"""Cleanup of a graph: nodes that compute nothing, constants in the wrong place.

Each function changes the graph in place and returns what it left alone.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from trimtab.core.errors import ModelError
from trimtab.core.graphs import share_opsets
from trimtab.core.ort.random_operators import RANDOM_OPS

from .declined import Declined
from .edit import drop_weight_inputs, lift_constants, name_nodes, remove_unused_initializers
from .names import fresh_name, share_names
from .queries import attr, input_at, is_onnx_op, node_label
from .stored.compressed import expand_compressed
from .stored.shared_constants import share_equal_constants


def inline_functions(model: ir.Model) -> None:
    """Write the nodes of local functions where they are called, in place.

    Raises:
        ModelError: a function is written for another operator set than the model, or calls itself.
    """
    if not model.functions:
        return
    for function in model.functions.values():
        _share_version(function, model.opset_imports.get("", 1))
    try:
        common.InlinePass()(model)
    except Exception as error:
        cause = error.__cause__ or error
        raise ModelError(
            f"its local functions cannot be inlined ({str(cause).partition(chr(10))[0][:300]})",
            hint="Export it again with one operator set for the model and its functions",
        ) from error


def _share_version(function: ir.Function, version: int) -> None:
    """Give a function the model's operator set where its operators are the same in both."""
    own = function.opset_imports.get("", version)
    types = {node.op_type for node in function.all_nodes() if is_onnx_op(node)}
    if own != version and all(_since(t, own) == _since(t, version) is not None for t in types):
        function.opset_imports[""] = version


def _since(op_type: str, version: int) -> int | None:
    """Return the version that an operator of an operator set is from; None if it has none."""
    try:
        return int(onnx.defs.get_schema(op_type, version, "").since_version)
    except onnx.defs.SchemaError:
        return None


def normalize(model: ir.Model) -> None:
    """Write a graph as every pass expects it: no functions, constants as initializers, names.

    An initializer that a caller may feed becomes a constant, each node gets a unique name, and
    weights stored in fewer bits become floats.
    """
    inline_functions(model)
    drop_weight_inputs(model)
    model.ir_version = max(model.ir_version, 4)
    # onnxruntime's quantizer handles initializers only, and quantizes a Constant like activations.
    lift_constants(model.graph)
    name_nodes(model.graph)
    share_opsets(model)
    expand_compressed(model)
    share_names(model)


def tidy(model: ir.Model) -> list[Declined]:
    """Normalize, and drop no-ops."""
    normalize(model)
    declined = drop_noops(model)
    common.RemoveUnusedNodesPass()(model)
    remove_unused_initializers(model.graph)
    return declined


def merge_equal(model: ir.Model) -> None:
    """Merge equal nodes and equal initializers, which onnxsim leaves."""
    if not any(is_onnx_op(n) and n.op_type in RANDOM_OPS for n in model.graph.all_nodes()):
        _name_absent_outputs(model)
        common.CommonSubexpressionEliminationPass()(model)
    common.DeduplicateInitializersPass()(model)  # small ones
    share_equal_constants(model)
    common.RemoveUnusedNodesPass()(model)


def _name_absent_outputs(model: ir.Model) -> None:
    """Name outputs that are left out: of two equal nodes the one that stays may lack what is read.

    Those that nothing reads lose the name with the unused nodes.
    """
    for node in model.graph.all_nodes():
        if node.op_type == "BatchNormalization" or len(node.outputs) < 2:
            continue  # a norm trains where it has further outputs
        for index, value in enumerate(node.outputs):
            if not value.name:
                value.name = fresh_name(model.graph, f"{node_label(node)}/{index}")


def drop_noops(model: ir.Model) -> list[Declined]:
    """Remove Identity, Cast to the type of its input, and Dropout in inference."""
    declined: list[Declined] = []
    for node in list(model.graph.all_nodes()):
        if not is_onnx_op(node) or node.op_type not in _NOOPS:
            continue
        reason = _NOOPS[node.op_type](node, model) or _bypass(node)
        if reason and not reason.startswith("needed"):
            declined.append(Declined(node_label(node), reason))
    return declined


def _identity(node: ir.Node, model: ir.Model) -> str:  # noqa: ARG001
    return ""


def _cast(node: ir.Node, model: ir.Model) -> str:  # noqa: ARG001
    given = node.inputs[0].dtype if node.inputs[0] is not None else None
    return "" if given is not None and given == node.attributes["to"].as_int() else "needed"


def _dropout(node: ir.Node, model: ir.Model) -> str:
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return "its mask is used"
    opset = node.version or model.opset_imports.get("", 1)
    if opset < 7:
        return "" if attr(node, "is_test", 0) else "drops at random before opset 7"
    training = input_at(node, 2)
    mode = None if training is None else training.const_value
    off = training is None or (mode is not None and not mode.numpy().any())
    return "" if off else "its training mode is on, or is decided while it runs"


_NOOPS = {"Identity": _identity, "Cast": _cast, "Dropout": _dropout}


def _bypass(node: ir.Node) -> str:
    """Connect a node's input to its users and remove it; return the reason where it must stay."""
    source, result = node.inputs[0], node.outputs[0]
    graph = node.graph
    if source is None or graph is None:
        return "needed: it has no input"
    if result.is_graph_output():
        fixed = source.is_graph_input() or source.is_initializer() or source.is_graph_output()
        producer = source.producer()
        if fixed or producer is None or producer.graph is not graph:
            return "needed: it gives a graph output its name"
        shape, kind, name = result.shape, result.type, result.name
        ir.convenience.replace_all_uses_with(result, source, replace_graph_outputs=True)
        result.name = None
        source.name, source.shape, source.type = name, shape or source.shape, kind or source.type
    else:
        ir.convenience.replace_all_uses_with(result, source)
        source.type = source.type or result.type
        source.shape = source.shape or result.shape
    graph.remove(node, safe=True)
    return ""


def restore_interface(after: ir.Model, before: ir.Model) -> None:
    """Give inputs, outputs and metadata of `before` to `after`, dimension names included.

    Simplifiers drop unused inputs and write inferred sizes into outputs; callers rely on both.
    """
    present = {value.name: value for value in after.graph.inputs}
    inputs = []
    for old in before.graph.inputs:
        if old.name in before.graph.initializers:
            continue
        value = present.get(old.name) or ir.val(str(old.name))
        _describe(value, old)
        inputs.append(value)
    after.graph.inputs.clear()
    after.graph.inputs.extend(inputs)
    for old, new in zip(before.graph.outputs, after.graph.outputs, strict=True):
        _describe(new, old)
    after.metadata_props.clear()
    after.metadata_props.update(before.metadata_props)


def _describe(value: ir.Value, like: ir.Value) -> None:
    value.type = like.type
    value.shape = None if like.shape is None else ir.Shape(list(like.shape))
