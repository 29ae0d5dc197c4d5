"""The provider of each node: onnxruntime falls back to the CPU without a warning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session

#: Session option that records the assignment of nodes.
RECORD = "session.record_ep_graph_assignment_info"

#: Name and operator of the nodes of each provider.
NodesByProvider = dict[str, list[tuple[str, str]]]


def nodes_by_provider(model: Model | Path, config: SessionConfig) -> NodesByProvider:
    """Build a session and return the nodes that onnxruntime assigned to each provider.

    It sees the graph after the basic optimizations, which is enough to notice a fallback.

    Raises:
        OptionError: this onnxruntime does not report it.
    """
    session = build_session(model, replace(config, config={**config.config, RECORD: "1"}))
    if not reports_assignment(session):
        raise OptionError(
            "this onnxruntime cannot tell which provider a node runs on",
            hint="Update onnxruntime to 1.24 or later",
        )
    return nodes_of(session)


def reports_assignment(session: Any) -> bool:
    """Return whether this onnxruntime reports which provider each node was assigned to."""
    return hasattr(session, "get_provider_graph_assignment_info")


def nodes_of(session: Any) -> NodesByProvider:
    """Return the nodes by provider of a session built with `RECORD`; empty where not reported."""
    found: NodesByProvider = {}
    for part in session.get_provider_graph_assignment_info() if reports_assignment(session) else ():
        nodes = [(node.name, node.op_type) for node in part.get_nodes()]
        found.setdefault(part.ep_name, []).extend(nodes)
    return found
