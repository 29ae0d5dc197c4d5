"""Which provider each node was given to: onnxruntime falls back to the CPU without a word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session

#: Makes a session remember where its nodes went.
RECORD = "session.record_ep_graph_assignment_info"

Placed = dict[str, list[tuple[str, str]]]


def nodes_by_provider(model: Model | Path, config: SessionConfig) -> Placed:
    """Name and operator of the nodes that onnxruntime assigned to each provider.

    It tells of the graph after its basic optimizations, which is enough to see a fallback.

    Raises:
        OptionError: this onnxruntime cannot tell.
    """
    session = build_session(model, replace(config, config={**config.config, RECORD: "1"}))
    if not tells(session):
        raise OptionError(
            "this onnxruntime cannot tell which provider a node runs on",
            hint="Update onnxruntime to 1.24 or later",
        )
    return nodes_of(session)


def tells(session: Any) -> bool:
    """Whether this onnxruntime can tell where nodes went."""
    return hasattr(session, "get_provider_graph_assignment_info")


def nodes_of(session: Any) -> Placed:
    """The same of a session that was built with `RECORD`; empty where onnxruntime cannot tell."""
    found: Placed = {}
    for part in session.get_provider_graph_assignment_info() if tells(session) else ():
        nodes = [(node.name, node.op_type) for node in part.get_nodes()]
        found.setdefault(part.ep_name, []).extend(nodes)
    return found
