"""Lookup of intermediate outputs by the name of a tensor, a node or a submodule."""

from __future__ import annotations

from trimtab.core.model import Model


def tensor_named(model: Model, name: str) -> str:
    """Return the name of the tensor that a name stands for; itself where nothing has it.

    It names a tensor; a node, for its first output; or a submodule such as `layer4` or `layer4.1`,
    whose nodes an export calls `layer4.1/relu`, for the first output of its last node.
    """
    nodes = list(model.graph)
    if any(name == value.name for node in nodes for value in node.outputs):
        return name
    inside = (f"{name}.", f"{name}/")
    found = [node for node in nodes if node.name == name]
    found = found or [node for node in nodes if (node.name or "").startswith(inside)]
    return (found[-1].outputs[0].name or "") if found else name
