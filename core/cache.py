"""Where things are kept between runs: one folder a user, decided here alone."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

#: Environment variable that names the folder.
VARIABLE = "TRIMTAB_CACHE"


def cache_root() -> Path:
    r"""Return the folder that the variable TRIMTAB_CACHE names, else the system's for caches.

    That is `$XDG_CACHE_HOME/trimtab` or `~/.cache/trimtab` on Linux, `~/Library/Caches/trimtab` on
    macOS, `%LOCALAPPDATA%\trimtab\Cache` on Windows.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    return user_cache_path("trimtab", appauthor=False)
