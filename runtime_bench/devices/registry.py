"""Named devices, kept in a file of the user."""

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
    """Return the path of the file of devices."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "trimtab" / "devices.json"


def load() -> dict[str, str]:
    """Return the addresses by name.

    Raises:
        InputError: the file is not a valid list of devices.
    """
    path = devices_file()
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(k): str(v) for k, v in found["devices"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            "cannot be read as a list of devices", where=str(path), hint="Fix or remove it"
        ) from error


def add(name: str, address: str) -> Ssh | FleetAddress | BareDevice:
    """Save a device under a name.

    Raises:
        OptionError: the name or the address is not valid.
    """
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"{name!r} is not a valid name", hint="Use letters, digits, '.', '_' and '-'"
        )
    device = parse(address)
    _save(load() | {name: address})
    return device


def remove(name: str) -> None:
    """Remove a device.

    Raises:
        OptionError: there is no device of that name.
    """
    known = load()
    if name not in known:
        raise unknown("device", name, known)
    _save({k: v for k, v in known.items() if k != name})


def find(name: str) -> Ssh | FleetAddress | BareDevice:
    """Return a device by its name or address.

    Raises:
        OptionError: the name is unknown, or the address is not valid.
    """
    if "://" in name:
        return parse(name)
    known = load()
    if name not in known:
        raise OptionError(
            f"there is no device {name!r}",
            where="--on",
            hint=f"Known: {', '.join(['web', 'node', *sorted(known)])}. Give ssh://user@host, or "
            "`trimtab device add NAME ssh://user@host` first",
        )
    return parse(known[name])


def has_perf_test(address: str) -> bool:
    """Return whether a device measures by onnxruntime_perf_test, without Python."""
    return address.startswith("adb://") or "perf_test=" in address.partition("?")[2]


def parse(address: str) -> Ssh | FleetAddress | BareDevice:
    """Parse the address of a device.

    Raises:
        OptionError: the address is not valid.
    """
    if address.startswith(FLEET):
        return FleetAddress.parse(address)
    return BareDevice.parse(address) if has_perf_test(address) else Ssh.parse(address)


def _save(devices: dict[str, str]) -> None:
    path = devices_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"schema": 1, "devices": devices}, indent=1) + "\n")
