"""Cache folder of the user: the only place where its path is decided."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

#: Environment variable that overrides the folder.
VARIABLE = "TRIMTAB_CACHE"
#: Expression with the value of `cache_root` on Linux, for a Python without platformdirs: it needs
#: `os` alone.
LINUX_CACHE_ROOT = (
    f'os.path.expanduser(os.environ.get("{VARIABLE}") or os.path.join('
    'os.environ.get("XDG_CACHE_HOME") or "~/.cache", "trimtab"))'
)


def cache_root() -> Path:
    r"""Return the folder that TRIMTAB_CACHE names, else the system's folder for caches.

    That is `$XDG_CACHE_HOME/trimtab` or `~/.cache/trimtab` on Linux, `~/Library/Caches/trimtab` on
    macOS, `%LOCALAPPDATA%\trimtab\Cache` on Windows.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    return user_cache_path("trimtab", appauthor=False)


def read_figures(path: Path) -> dict[str, dict[str, Any]]:
    """Read figures by machine and name; nothing where there is no such file, or another one."""
    try:
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
