"""Where things are kept between runs: one folder a user, decided here alone."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

#: Environment variable that names the folder.
VARIABLE = "TRIMTAB_CACHE"
#: Expression with the value of `cache_root` on Linux, for a Python without platformdirs: it needs
#: `os` alone.
LINUX_CACHE_ROOT = (
    f'os.path.expanduser(os.environ.get("{VARIABLE}") or os.path.join('
    'os.environ.get("XDG_CACHE_HOME") or "~/.cache", "trimtab"))'
)


def cache_root() -> Path:
    r"""Return the folder that the variable TRIMTAB_CACHE names, else the system's for caches.

    That is `$XDG_CACHE_HOME/trimtab` or `~/.cache/trimtab` on Linux, `~/Library/Caches/trimtab` on
    macOS, `%LOCALAPPDATA%\trimtab\Cache` on Windows.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    return user_cache_path("trimtab", appauthor=False)
