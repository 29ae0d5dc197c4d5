"""Lookup of intermediate outputs by the name of a tensor, a node or a submodule."""

from __future__ import annotations

from trimtab.core.model import Model


def tensor_named(model: Model, name: str) -> str:
    """Return the tensor that a name stands for.

    Args:
        model: model to search.
        name: name of a tensor; of a node, for its first output; or of a submodule such as `layer4`
            or `layer4.1`, whose nodes an export calls `layer4.1/relu`, for the first output of its
            last node.

    Returns:
        The tensor's name; `name` itself where nothing has it.
    """
    nodes = list(model.graph)
    if any(name == value.name for node in nodes for value in node.outputs):
        return name
    found = [node for node in nodes if node.name == name]
    inside = (f"{name}.", f"{name}/")
    found = found or [node for node in nodes if (node.name or "").startswith(inside)]
    return (found[-1].outputs[0].name or "") if found else name
