"""Chromium with a page that runs onnxruntime-web, Node with onnxruntime-node, and their needs."""

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import OptionError, RunError

from ..measure.workers.protocol import Message
from .web_server import SCRIPT, PageServer

#: Address of the browser as a device, and providers that may follow it; address of Node.
WEB, PROVIDERS, NODE = "web", ("wasm", "webgpu"), "node"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Package of each, and the file of it that is loaded.
_WEB_PACKAGE = ("onnxruntime-web", "dist/ort.wasm.min.mjs")
_NODE_PACKAGE = ("onnxruntime-node", "dist/index.js")
#: Seconds for a browser to start and load its page; between looks at whether it lives.
_START, _LOOK = 60.0, 0.05
_FLAGS = (
    *("--headless=new", "--no-first-run", "--no-default-browser-check", "--disable-extensions"),
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
    *("--disable-backgrounding-occluded-windows", "--disable-dev-shm-usage", "--mute-audio"),
)
#: Script of a shell that becomes the program, and of one that kills both at the end of its input.
_GROUP = 'exec 3<&0 </dev/null; { cat <&3 >/dev/null; kill -9 0; } & exec "$@" 3<&-'

#: WebGPU without a GPU.
_SOFTWARE_GPU = (
    *("--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"),
)


@dataclass(frozen=True)
class WebDevice:
    """Browser, or Node, of this machine.

    Attributes:
        provider: wasm, webgpu or node.
        browser: path of Chromium or of Node.
        runtime: folder `dist` of onnxruntime-web or onnxruntime-node.
    """

    provider: str
    browser: str
    runtime: Path

    @classmethod
    def of(cls, name: str) -> WebDevice:
        """Find what `web`, `web:webgpu` or `node` needs.

        Raises:
            OptionError: the name is not valid, or a program or its package is missing.
        """
        if name == NODE:
            return cls(NODE, _node(), _runtime(NODE, *_NODE_PACKAGE))
        kind, _, provider = name.partition(":")
        if kind != WEB or provider not in {"", *PROVIDERS}:
            raise OptionError(
                f"{provider!r} is not a provider of a browser",
                where=f"--on {name}",
                hint="Write web, web:webgpu, or node",
            )
        return cls(provider or "wasm", _chromium(), _runtime(WEB, *_WEB_PACKAGE))

    def __str__(self) -> str:
        named = {"wasm": WEB, NODE: NODE}
        return named.get(self.provider, f"{WEB}:{self.provider}")

    @property
    def version(self) -> str:
        """Package and version that runs there."""
        package = json.loads((self.runtime.parent / "package.json").read_text(encoding="utf-8"))
        return f"{package['name']} {package['version']}"

    def command(self, address: str, profile: str) -> list[str]:
        """Return the command line that runs models for a server at an address."""
        if self.provider == NODE:
            return [self.browser, str(SCRIPT), address, str(self.runtime / "index.js")]
        root = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
        gpu = _SOFTWARE_GPU if self.provider == "webgpu" else ()
        place = (f"--user-data-dir={profile}", f"{address}?provider={self.provider}")
        return [self.browser, *_FLAGS, *root, *gpu, *place]


def is_web(name: str) -> bool:
    """Return whether a name of a device is that of the browser, or of Node."""
    return name.partition(":")[0] in {WEB, NODE} and "://" not in name


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


def _node() -> str:
    found = shutil.which("node")
    if found is None:
        raise OptionError(
            "there is no Node on this machine",
            where="--on node",
            hint="Install it (apt-get install nodejs)",
        )
    return found


def _runtime(device: str, package: str, file: str) -> Path:
    given = os.environ.get("TRIMTAB_NODE_MODULES")
    checkout = Path(__file__).resolve().parent.parent.parent / "out/node/node_modules"
    folders = [Path(given)] if given else [Path("node_modules"), checkout]
    for folder in folders:
        if (folder / package / file).is_file():
            return (folder / package / file).resolve().parent
    raise OptionError(
        f"there is no {package} in {' or '.join(map(str, folders))}",
        where=f"--on {device}",
        hint=f"Run `npm install {package}` here, or name the folder node_modules in "
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
        self._process = start_group(device.command(self.server.address(), self._profile.name))

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
            what = "process" if self.device.provider == NODE else "browser"
            raise RunError(f"the {what} ended while it was to {doing}", where=name)
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


def start_group(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a program whose processes are one group, which ends with this process, too.

    This process may be killed without a word. So a shell in the group waits for the end of a pipe
    that this process alone holds open, and then kills all.
    """
    posix = os.name == "posix"
    return subprocess.Popen(  # noqa: S603 - the program that was found
        ["/bin/sh", "-c", _GROUP, "sh", *words] if posix else words,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a browser with all of its processes, which are one session."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()
