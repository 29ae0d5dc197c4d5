"""Manage boards and other machines to measure on, by ssh.

    trimtab device add pi5 ssh://me@pi5.local           save an address under a name, for --on pi5
    trimtab device list
    trimtab device check pi5                            show what it is, and what it lacks
    trimtab device install pi5 [--wheels FOLDER]        install trimtab on a device without internet
    trimtab device remove pi5

An address may name the interpreter there and another ssh configuration:
ssh://me@board:2222?python=/opt/venv/bin/python&config=/path/ssh_config. The system's ssh client
connects with your keys; a device with an unknown host key is refused.
"""

from __future__ import annotations

import argparse

SUMMARY = "manage boards and other machines to measure on"
EXAMPLE = "trimtab device add pi5 ssh://me@pi5.local"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    actions = ["add", "list", "remove", "check", "install"]
    parser.add_argument("action", choices=actions, metavar="|".join(actions))
    parser.add_argument("name", nargs="?", help="name of the device, or its address except for add")
    parser.add_argument("address", nargs="?", help="ssh://user@host[:port]")
    parser.add_argument("--wheels", metavar="FOLDER", help="install these, without a download")


def execute(args: argparse.Namespace) -> int:
    """Run the action."""
    from trimtab.core.errors import OptionError
    from trimtab.runtime_bench.devices import registry as devices

    if args.action != "list" and args.name is None:
        raise OptionError("needs the name of a device", where=f"device {args.action}")
    if (args.action == "add") != (args.address is not None):
        raise OptionError(
            "takes a name and an address" if args.action == "add" else "takes no address",
            where=f"device {args.action}",
            hint="trimtab device add NAME ssh://user@host",
        )
    if args.wheels is not None and args.action != "install":
        raise OptionError("is for install only", where="--wheels")
    if args.action == "add":
        device = devices.add(args.name, args.address)
        print(f"{args.name}: {device}. Try it: trimtab device check {args.name}")  # noqa: T201
    elif args.action == "remove":
        devices.remove(args.name)
        print(f"{args.name} is removed")  # noqa: T201
    elif args.action == "list":
        known = devices.load()
        lines = [f"{name}  {address}" for name, address in sorted(known.items())]
        print("\n".join(lines) or "no devices yet: trimtab device add NAME ssh://...")  # noqa: T201
    elif args.action == "install":
        return _install(args.name, args.wheels)
    else:
        return _check(args.name)
    return 0


def _install(name: str, wheels: str | None) -> int:
    from pathlib import Path

    from trimtab.core.errors import OptionError
    from trimtab.core.progress import Stderr
    from trimtab.runtime_bench.devices.check import check_lines
    from trimtab.runtime_bench.devices.install import install
    from trimtab.runtime_bench.devices.registry import find
    from trimtab.runtime_bench.devices.ssh import Ssh

    device = find(name)
    if not isinstance(device, Ssh):
        raise OptionError("is not reached by ssh", where=name, hint="Install trimtab there")
    found = install(device, Stderr(), Path(wheels) if wheels else None)
    print("\n".join(check_lines(found)))  # noqa: T201
    return 0 if found.ready else 1


def _check(name: str) -> int:
    from trimtab.core.progress import Stderr
    from trimtab.runtime_bench.devices.check import check, check_lines
    from trimtab.runtime_bench.devices.registry import find
    from trimtab.runtime_bench.devices.ssh import Ssh
    from trimtab.runtime_bench.open import bench_on

    device = find(name)
    if isinstance(device, Ssh):
        found = check(device)
        print("\n".join(check_lines(found)))  # noqa: T201
        return 0 if found.ready else 1
    with bench_on(name, Stderr()) as bench:
        here, target = bench.environment(), bench.target(None)
    kinds = ", ".join(here.flags) or "no known instruction set"
    print(f"{device}\n  {here.cpu}, {here.cpus} CPUs, {here.system}; {kinds}")  # noqa: T201
    print(f"  int8 with{'' if target.vnni else 'out'} dot products; ready to measure")  # noqa: T201
    return 0
