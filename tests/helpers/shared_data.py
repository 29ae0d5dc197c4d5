"""Test data that is too large for the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared(relative: str) -> Path:
    """Return a file of the shared data; the test is skipped where it is absent.

    The folder is the one that the variable TRIMTAB_SHARED names, else a folder `shared` beside or
    in the checkout.
    """
    checkout = Path(__file__).resolve().parents[2]
    named = os.environ.get("TRIMTAB_SHARED")
    folders = [Path(named)] if named else [checkout.parent / "shared", checkout / "shared"]
    for folder in folders:
        if (folder / relative).exists():
            return folder / relative
    pytest.skip(
        f"needs {relative} of the shared data, which is not in {' or '.join(map(str, folders))}; "
        "set TRIMTAB_SHARED to its folder"
    )
