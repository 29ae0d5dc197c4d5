"""Loopback server of a page: it hands out commands and files, and takes the answers."""

from __future__ import annotations

import json
import queue
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..measure.workers.protocol import Message

PAGE = Path(__file__).parent / "web_page.html"
#: What runs models: the page's script, and the program of Node.
SCRIPT = PAGE.with_suffix(".mjs")
#: Seconds for which a page waits for a command before it asks again, and between signs of life.
_WAIT, _SIGN = 20.0, 0.5
_KINDS = {".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class PageServer:
    """Server of one page on 127.0.0.1, under an address that nobody else knows.

    Its pages are isolated from other origins: only then a browser gives threads and exact clocks.

    Attributes:
        gone: set once the page's connection ends.
    """

    def __init__(self, runtime: Path, files: Path) -> None:
        self.runtime, self.files = runtime, files
        self.commands: queue.Queue[Message] = queue.Queue()
        self.answers: queue.Queue[Message] = queue.Queue()
        self.gone = threading.Event()
        self._closed = threading.Event()
        self.secret = secrets.token_urlsafe(16)
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def address(self) -> str:
        """Return the address of the page."""
        return f"http://127.0.0.1:{self._server.server_port}/{self.secret}/"

    @property
    def closed(self) -> bool:
        """True once the server is closed."""
        return self._closed.is_set()

    def close(self) -> None:
        """Stop serving."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write nothing: a browser that is ended leaves connections half-way."""


class _Handler(BaseHTTPRequestHandler):
    owner: PageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        secret, _, rest = self.path.split("?")[0].lstrip("/").partition("/")
        folder, _, name = rest.rpartition("/")
        if secret != self.owner.secret:
            self.send_error(404)
        elif rest == "":
            self._send(PAGE.read_bytes(), ".html")
        elif rest == "page.mjs":
            self._send(SCRIPT.read_bytes(), SCRIPT.suffix)
        elif rest == "next":
            self._send(json.dumps(_next(self.owner)).encode())
        elif rest == "alive":
            self._stay()
        else:
            root = {"ort": self.owner.runtime, "files": self.owner.files}.get(folder)
            path = root / name if root is not None else None
            if path is None or not path.is_file():
                self.send_error(404)
            else:
                self._send(path.read_bytes(), path.suffix)

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        if self.path == f"/{self.owner.secret}/answer":
            self.owner.answers.put(json.loads(body))
        self._send(b"{}")

    def _stay(self) -> None:
        """Keep the connection of a page open: its end means that the page has died."""
        self.send_response(200)
        self._isolate()
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while not self.owner.closed:
                self.wfile.write(b".")
                self.wfile.flush()
                self.owner._closed.wait(_SIGN)  # noqa: SLF001 - its own server
        except OSError:
            self.owner.gone.set()
        self.close_connection = True

    def _send(self, data: bytes, suffix: str = "") -> None:
        self.send_response(200)
        self._isolate()
        self.send_header("Content-Type", _KINDS.get(suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _isolate(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Write nothing: requests belong to nobody's terminal."""


def _next(owner: PageServer) -> Message:
    try:
        return owner.commands.get(timeout=_WAIT)
    except queue.Empty:
        return {"do": "wait"}
