"""Answer of WebGPU in a browser: which nodes it takes, by the log of onnxruntime-web."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trimtab.core.errors import OptionError, RunError
from trimtab.core.model import Model

from ..support.ask import Answer, ask
from ..support.table import SupportTable
from .web_browser import BrowserPage, WebDevice

#: Provider of the browser that can be asked on any machine with Chromium.
WEBGPU = "WebGpuExecutionProvider"
#: Seconds that a page may take to build the session.
_SECONDS = 120.0
_PLACED = re.compile(r"placed on \[(\w+)\]|\]   (\S+) \((.*)\)$")


def ask_anywhere(model: Model, table: SupportTable) -> tuple[Answer | None, str]:
    """Ask the provider of a table, installed or in the browser; else return the reason why not.

    For the model see `ask`.
    """
    answer, why = ask(model, table)
    if answer is not None or table.provider != WEBGPU:
        return answer, why
    try:
        device = WebDevice.of("web:webgpu")
        with tempfile.TemporaryDirectory(prefix="trimtab-web-") as folder:
            (Path(folder) / "model.onnx").write_bytes(model.to_bytes())
            page = BrowserPage(device, Path(folder))
            try:
                told = page.ask(model.name, "place nodes", _SECONDS, do="place", model="model.onnx")
            finally:
                page.close()
    except (OptionError, RunError) as error:
        return None, f"{why}, nor in a browser: {error}"
    names = [node.name or "" for node in model.graph]
    return Answer(f"{device.version} in Chromium", taken_nodes(told["lines"], names)), ""


def taken_nodes(lines: Sequence[str], names: Sequence[str]) -> dict[str, bool]:
    """Read which nodes WebGPU takes from the lines of the log that place them.

    A provider that has all nodes lists none; a node that was added or removed meanwhile is no
    node of `names`.
    """
    there, placed = False, dict[str, bool]()
    for line in lines:
        found = _PLACED.search(line)
        if found is None:
            continue
        provider, _, name = found.groups()
        if provider is None:
            placed[name] = there
            continue
        there = provider == WEBGPU
        if "All nodes placed" in line:
            return dict.fromkeys(names, there)
    return {name: placed[name] for name in names if name in placed}
