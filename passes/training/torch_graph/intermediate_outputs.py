"""Inner tensors by the names that people know: a tensor's, its node's, or that of a module."""

from __future__ import annotations

import onnx_ir as ir

from trimtab.core.model import Model


def tensor_named(model: Model, name: str) -> str:
    """The tensor that a name stands for.

    Args:
        model: where it is looked for.
        name: of a tensor; of a node, for its first output; or of a submodule such as `layer4` or
            `layer4.1`, whose nodes an export calls `layer4.1/relu`, for what its last node makes.

    Returns:
        The tensor's name; the name as it was given where nothing bears it.
    """
    nodes = list(model.graph)
    if any(name == value.name for node in nodes for value in node.outputs):
        return name
    found = [node for node in nodes if node.name == name]
    inside = (f"{name}.", f"{name}/")
    found = found or [node for node in nodes if (node.name or "").startswith(inside)]
    return _first_output(found[-1]) if found else name


def _first_output(node: ir.Node) -> str:
    return node.outputs[0].name or ""
