"""The charting library as one script: Vega, Vega-Lite and vega-embed, out of `vl-convert-python`.

The package contains the sources, so nothing is fetched; bundling them takes some seconds, so the
bundle is kept in the user's cache, by version.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import version

from trimtab.core.errors import MissingExtraError, OutputError
from trimtab.core.files import write_text

#: The function that the page's own script calls.
_EXPORTS = "window.vegaEmbed = vegaEmbed;"


def charting_script() -> str:
    """Return JavaScript that defines `vegaEmbed`, about 0.9 MB.

    Raises:
        MissingExtraError: the extra `report` is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise MissingExtraError(
            "the report's charts need vl-convert-python", extra="report"
        ) from error
    from trimtab.core.cache import cache_root

    path = cache_root() / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    script = str(vl_convert.javascript_bundle(_EXPORTS))
    with contextlib.suppress(OutputError):  # a cache that cannot be written costs only time
        write_text(path, script)
    return script
