"""Execution providers of this machine: which start, on what devices, what others need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx.parser

from ..errors import TrimtabError
from ..model import Model
from .accelerators import ACCELERATORS, CPU
from .builds import installed_builds
from .engines import Engine
from .plugins import built_in_providers, device_text, installed_plugins, plugin_devices
from .session import SessionConfig, available_providers, build_session

_TINY = '<ir_version: 8, opset_import: ["": 17]> tiny (float[1] x) => (float[1] y) { y = Relu(x) }'


@dataclass(frozen=True)
class ProviderState:
    """State of a provider on this machine.

    Attributes:
        name: its short name.
        provider: onnxruntime's name.
        state: "ready", "does not start" or "not installed".
        source: package and version that it comes from; empty where there is none.
        devices: devices that it runs on here.
        missing: what to do to have it; empty where it is ready.
    """

    name: str
    provider: str
    state: str
    source: str = ""
    devices: tuple[str, ...] = ()
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {**self.__dict__, "devices": list(self.devices)}


def inventory() -> list[ProviderState]:
    """Return the state of each provider that is known or installed, those that start first."""
    names = dict.fromkeys([CPU, *available_providers(), *ACCELERATORS])
    found = [_state(name) for name in names if name != "AzureExecutionProvider"]
    order = ("ready", "does not start", "not installed")
    return sorted(found, key=lambda state: order.index(state.state))


def package_of(provider: str) -> str:
    """Return the package and version that an available provider comes from."""
    if provider not in built_in_providers():
        return installed_plugins()[provider].package
    builds: Sequence[str] = installed_builds() or ["onnxruntime"]
    return builds[-1]


def _state(provider: str) -> ProviderState:
    short = str(Engine(provider))
    known = ACCELERATORS.get(provider)
    if provider not in available_providers():
        install = known.install if known else ""
        return ProviderState(short, provider, "not installed", missing=install)
    built_in, source = provider in built_in_providers(), package_of(provider)
    try:
        devices = () if built_in else tuple(map(device_text, plugin_devices(provider)))
        tiny = Model.from_proto(onnx.parser.parse_model(_TINY))
        build_session(tiny, SessionConfig(provider=provider))
    except TrimtabError as error:
        return ProviderState(short, provider, "does not start", source, (), str(error))
    return ProviderState(short, provider, "ready", source, tuple(dict.fromkeys(devices)))
