"""List the execution providers: which start here, on which devices, and what others need.

A provider is built into onnxruntime's package or comes as a package of its own, such as
onnxruntime-ep-openvino, which is found where it is installed. Names are those of --provider.
"""

from __future__ import annotations

import argparse

SUMMARY = "list the execution providers, their devices, and what is missing"
EXAMPLE = "trimtab providers"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(args: argparse.Namespace) -> int:
    """Print the list."""
    import json

    from trimtab.core.ort.builds import installed_builds, two_builds
    from trimtab.core.ort.inventory import inventory
    from trimtab.core.text import table

    found, warning = inventory(), two_builds()
    if args.json:
        document = {
            "builds": installed_builds(),
            "warning": warning,
            "providers": [state.to_json() for state in found],
        }
        print(json.dumps(document, indent=1))  # noqa: T201
        return 0
    rows = [[s.name, s.state, s.source, "; ".join(s.devices)] for s in found]
    print("\n".join(table(["provider", "state", "from", "devices"], rows)))  # noqa: T201
    print()  # noqa: T201
    for state in found:
        if state.missing:
            print(f"{state.name}: {state.missing}")  # noqa: T201
    return 0
