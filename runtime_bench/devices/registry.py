"""Devices by name, in a file of the user."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from trimtab.core.errors import InputError, OptionError, unknown
from trimtab.core.files import write_text

from .fleet_address import FleetAddress
from .shells import BareDevice
from .ssh import Ssh

FLEET = "dask://"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def devices_file() -> Path:
    """The file that holds the devices."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "trimtab" / "devices.json"


def load() -> dict[str, str]:
    """Addresses by name.

    Raises:
        InputError: the file is none of ours.
    """
    path = devices_file()
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(k): str(v) for k, v in found["devices"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            "cannot be read as a list of devices", where=str(path), hint="Mend or remove it"
        ) from error


def add(name: str, address: str) -> Ssh | FleetAddress | BareDevice:
    """Keep a device under a name.

    Raises:
        OptionError: the name or the address is none.
    """
    if not _NAME.fullmatch(name):
        raise OptionError(f"{name!r} is no name", hint="Use letters, digits, '.', '_' and '-'")
    device = parse(address)
    _save(load() | {name: address})
    return device


def remove(name: str) -> None:
    """Forget a device.

    Raises:
        OptionError: there is none of that name.
    """
    known = load()
    if name not in known:
        raise unknown("device", name, known)
    _save({k: v for k, v in known.items() if k != name})


def find(name: str) -> Ssh | FleetAddress | BareDevice:
    """A device by name or address.

    Raises:
        OptionError: it is neither.
    """
    if "://" in name:
        return parse(name)
    known = load()
    if name not in known:
        raise OptionError(
            f"there is no device {name!r}",
            where="--on",
            hint=f"Known: {', '.join(sorted(known)) or 'none'}. Give ssh://user@host, or "
            "`trimtab device add NAME ssh://user@host` first",
        )
    return parse(known[name])


def is_bare(address: str) -> bool:
    """Whether a device has no Python, and measures by onnxruntime_perf_test."""
    return address.startswith("adb://") or "perf_test=" in address.partition("?")[2]


def parse(address: str) -> Ssh | FleetAddress | BareDevice:
    """A device from its address.

    Raises:
        OptionError: it is none.
    """
    if address.startswith(FLEET):
        return FleetAddress.parse(address)
    return BareDevice.parse(address) if is_bare(address) else Ssh.parse(address)


def _save(devices: dict[str, str]) -> None:
    path = devices_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"schema": 1, "devices": devices}, indent=1) + "\n")
