"""Chromium without a window, with a page that runs onnxruntime-web, and what both need."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import OptionError, RunError

from ..measure.protocol import Message
from .web_server import PageServer

#: Address of the browser as a device, and providers that may follow it.
WEB, PROVIDERS = "web", ("wasm", "webgpu")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PACKAGE = "onnxruntime-web"
#: Seconds for a browser to start and load its page; between looks at whether it lives.
_START, _LOOK = 60.0, 0.05
_FLAGS = (
    *("--headless=new", "--no-first-run", "--no-default-browser-check", "--disable-extensions"),
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
    *("--disable-backgrounding-occluded-windows", "--disable-dev-shm-usage", "--mute-audio"),
)

#: WebGPU without a GPU.
_SOFTWARE_GPU = (
    *("--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"),
)


@dataclass(frozen=True)
class WebDevice:
    """Browser of this machine.

    Attributes:
        provider: wasm or webgpu.
        browser: path of Chromium.
        runtime: folder `dist` of onnxruntime-web.
    """

    provider: str
    browser: str
    runtime: Path

    @classmethod
    def of(cls, name: str) -> WebDevice:
        """Find what `web` or `web:webgpu` needs.

        Raises:
            OptionError: the name is not valid, or Chromium or onnxruntime-web is missing.
        """
        _, _, provider = name.partition(":")
        if provider not in {"", *PROVIDERS}:
            raise OptionError(
                f"{provider!r} is not a provider of a browser",
                where=f"--on {name}",
                hint="Write web, or web:webgpu",
            )
        return cls(provider or "wasm", _chromium(), _runtime())

    def __str__(self) -> str:
        return WEB if self.provider == "wasm" else f"{WEB}:{self.provider}"

    @property
    def version(self) -> str:
        """Package and version that runs there."""
        package = json.loads((self.runtime.parent / "package.json").read_text(encoding="utf-8"))
        return f"{_PACKAGE} {package['version']}"


def is_web(name: str) -> bool:
    """Return whether a name of a device is that of the browser."""
    return name.partition(":")[0] == WEB and "://" not in name


def _chromium() -> str:
    named = [os.environ.get("TRIMTAB_CHROMIUM"), *_BROWSERS]
    found = next((path for name in named if name and (path := shutil.which(name))), None)
    if found is None:
        raise OptionError(
            "there is no Chromium on this machine",
            where="--on web",
            hint="Install it (apt-get install chromium), or name it in TRIMTAB_CHROMIUM",
        )
    return found


def _runtime() -> Path:
    given = os.environ.get("TRIMTAB_NODE_MODULES")
    checkout = Path(__file__).resolve().parent.parent.parent / "out/node/node_modules"
    folders = [Path(given)] if given else [Path("node_modules"), checkout]
    for folder in folders:
        if (folder / _PACKAGE / "dist/ort.wasm.min.mjs").is_file():
            return (folder / _PACKAGE / "dist").resolve()
    raise OptionError(
        f"there is no {_PACKAGE} in {' or '.join(map(str, folders))}",
        where="--on web",
        hint=f"Run `npm install {_PACKAGE}` here, or name the folder node_modules in "
        "TRIMTAB_NODE_MODULES",
    )


class BrowserPage:
    """A browser process with one page: what happens to it happens to no other contender."""

    def __init__(self, device: WebDevice, files: Path) -> None:
        self.device = device
        self._profile = tempfile.TemporaryDirectory(
            prefix="trimtab-chromium-", ignore_cleanup_errors=True
        )
        self.server = PageServer(device.runtime, files)
        root = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
        gpu = _SOFTWARE_GPU if device.provider == "webgpu" else ()
        words = [device.browser, *_FLAGS, *root, *gpu]
        address = self.server.address(f"?provider={device.provider}")
        self._process = subprocess.Popen(  # noqa: S603 - the browser that was found
            [*words, f"--user-data-dir={self._profile.name}", address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def ask(self, name: str, doing: str, limit: float, **message: object) -> Message:
        """Give the page a command and return its answer.

        Raises:
            RunError: onnxruntime-web refuses it, or the page or the browser died or hangs.
        """
        self.server.commands.put(dict(message))
        end = time.monotonic() + limit + _START
        while True:
            try:
                answer = self.server.answers.get(timeout=_LOOK)
                break
            except queue.Empty:
                self._check(name, doing, end)
        if "error" in answer:
            line = str(answer["error"]).strip().splitlines()[0][:400]
            raise RunError(f"{self.device.version} refuses it: {line}", where=name)
        return answer

    def _check(self, name: str, doing: str, end: float) -> None:
        if self._process.poll() is not None:
            raise RunError(f"the browser ended while it was to {doing}", where=name)
        if self.server.gone.is_set():
            hint = "It needs more memory than a page gets, or crashes onnxruntime-web"
            raise RunError(f"the page died while it was to {doing}", where=name, hint=hint)
        if time.monotonic() > end:
            raise RunError(f"the page did not {doing} in time", where=name)

    def close(self) -> None:
        """End the browser and its server."""
        _end(self._process)
        self.server.close()
        self._profile.cleanup()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a browser with all of its processes, which are one session."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
