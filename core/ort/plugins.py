"""Execution providers that are packages of their own, which a process registers once.

onnxruntime 1.23 and later loads such a provider from a library, asks it for the devices that it
runs on here, and adds these to a session. A package of one is a module `onnxruntime_ep_NAME`, or
`onnxruntime_qnn`, with the functions `get_ep_names` and `get_library_path`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from ..errors import OptionError
from ..runtime import runtime

#: Beginning of the module names of provider packages, and a name that begins otherwise.
_PREFIX, _OTHERS = "onnxruntime_ep_", frozenset({"onnxruntime_qnn"})


@dataclass(frozen=True)
class Plugin:
    """Installed package of a provider.

    Attributes:
        provider: onnxruntime's name of the provider.
        package: name and version of the package, "onnxruntime-ep-openvino 1.8.1".
        library: path of its library.
    """

    provider: str
    package: str
    library: str


@functools.cache
def installed_plugins() -> Mapping[str, Plugin]:
    """Return the installed packages of providers by provider; none of their libraries is loaded."""
    return {plugin.provider: plugin for plugin in _found()}


def _found() -> Iterator[Plugin]:
    for info in pkgutil.iter_modules():
        if not info.name.startswith(_PREFIX) and info.name not in _OTHERS:
            continue
        try:
            module = importlib.import_module(info.name)
            names, library = module.get_ep_names(), str(module.get_library_path())
        except Exception:  # noqa: BLE001, S112 - a broken package is as good as none
            continue
        package = info.name.replace("_", "-")
        for name in names:
            yield Plugin(str(name), f"{package} {_version(package)}", library)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def plugin_names() -> tuple[str, ...]:
    """Return the providers whose packages are installed; onnxruntime before 1.23 uses none."""
    ort = runtime()

    return tuple(installed_plugins()) if hasattr(ort, "get_ep_devices") else ()


@functools.cache
def built_in_providers() -> tuple[str, ...]:
    """Return the providers of onnxruntime's own build: its list grows as others are registered."""
    ort = runtime()

    return tuple(ort.get_available_providers())


def is_plugin(provider: str) -> bool:
    """Return whether a provider comes from a package of its own; a built-in one goes first."""
    return provider not in built_in_providers() and provider in plugin_names()


@functools.cache
def plugin_devices(provider: str) -> tuple[Any, ...]:
    """Register a provider's library, once a process, and return the devices that it runs on here.

    Raises:
        OptionError: onnxruntime cannot load the library.
    """
    ort = runtime()

    built_in_providers()  # before there are more
    plugin = installed_plugins()[provider]
    try:
        ort.register_execution_provider_library(provider, plugin.library)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OptionError(
            f"{plugin.package} does not load: {line[:300]}",
            where=provider,
            hint=f"onnxruntime here is {ort.__version__}: update both, or uninstall the package",
        ) from error
    return tuple(d for d in ort.get_ep_devices() if d.ep_name == provider)


def device_text(device: Any) -> str:
    """Return a device of a provider as text: "CPU, Intel(R) Xeon(R) Processor"."""
    facts = device.ep_metadata
    kind = facts.get("ov_device") or device.device.type.name
    name = facts.get("FULL_DEVICE_NAME") or device.device.vendor
    return f"{kind}, {name}" if name else str(kind)


def chosen_devices(provider: str, options: Mapping[str, str]) -> tuple[list[Any], dict[str, str]]:
    """Return the device that the option `device_type` names, and the options without it.

    Without the option it is the first device.

    Raises:
        OptionError: the provider has no device here, or none of that type.
    """
    found = plugin_devices(provider)
    if not found:
        raise OptionError(
            f"{installed_plugins()[provider].package} finds no device here that it runs on",
            where=provider,
            hint="Its hardware or driver is missing; `trimtab providers` lists what there is",
        )
    wanted = options.get("device_type", "").upper()
    rest = {k: v for k, v in options.items() if k != "device_type"}
    if not wanted:
        return [found[0]], rest
    for device in found:
        if wanted in {device.ep_metadata.get("ov_device"), device.device.type.name}:
            return [device], rest
    raise OptionError(
        f"has no device of type {wanted} here",
        where=provider,
        hint="It has " + "; ".join(dict.fromkeys(map(device_text, found))),
    )
