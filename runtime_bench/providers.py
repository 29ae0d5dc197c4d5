"""Which provider each node was given to: onnxruntime falls back to the CPU without a word."""

from __future__ import annotations

from dataclasses import replace

from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.session import SessionConfig, build_session


def nodes_by_provider(model: Model, config: SessionConfig) -> dict[str, list[tuple[str, str]]]:
    """Name and operator of the nodes that onnxruntime assigned to each provider.

    It tells of the graph after its basic optimizations, which is enough to see a fallback.

    Raises:
        OptionError: this onnxruntime cannot tell.
    """
    recorded = {**config.config, "session.record_ep_graph_assignment_info": "1"}
    session = build_session(model, replace(config, config=recorded))
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise OptionError(
            "this onnxruntime cannot tell which provider a node runs on",
            hint="Update onnxruntime to 1.24 or later",
        )
    found: dict[str, list[tuple[str, str]]] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes = [(node.name, node.op_type) for node in part.get_nodes()]
        found.setdefault(part.ep_name, []).extend(nodes)
    return found
