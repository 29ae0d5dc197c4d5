"""Answer of a provider that is installed here: it places nodes without running them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab.core.errors import TrimtabError
from trimtab.core.model import Model
from trimtab.core.ort.inventory import package_of
from trimtab.core.ort.session import SessionConfig, available_providers

from ..machine.providers import nodes_by_provider
from .table import SupportTable


@dataclass(frozen=True)
class Answer:
    """Answer of a provider.

    Attributes:
        package: package and version that answered.
        taken: whether it takes a node, by name.
    """

    package: str
    taken: Mapping[str, bool]


def ask(model: Model, table: SupportTable) -> tuple[Answer | None, str]:
    """Ask the provider of a table, where it is installed; else return the reason why not.

    The model has names for its nodes and no free dimensions; onnxruntime's basic optimizations are
    done.
    """
    if table.ask is None:
        return None, ""
    if table.provider not in available_providers():
        return None, f"{table.provider} is not installed here"
    config = SessionConfig(provider=table.provider, level="basic", provider_options=dict(table.ask))
    try:
        placed = nodes_by_provider(model, config)
    except TrimtabError as error:
        return None, f"{package_of(table.provider)} was asked and failed: {error}"
    taken = {name: owner == table.provider for owner, ns in placed.items() for name, _ in ns}
    return Answer(package_of(table.provider), taken), ""
