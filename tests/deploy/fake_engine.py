"""A Docker engine of a few endpoints, on a unix socket: containers are processes of the test."""

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import unquote, urlparse

_API = "1.44"


class FakeEngine(ThreadingMixIn, UnixStreamServer):
    """Knows containers by name and tells of their starts."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self._listeners: list[queue.Queue[dict[str, Any] | None]] = []
        super().__init__(str(path), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def start(self, name: str, identity: str, pid: int) -> None:
        """Have a container run in the network of a process, and say so."""
        self.containers[name] = {
            "Id": identity,
            "Name": f"/{name}",
            "State": {"Pid": pid, "Status": "running" if pid else "exited"},
        }
        event = {
            "Type": "container",
            "Action": "start",
            "Actor": {"ID": identity, "Attributes": {"name": name}},
        }
        for listener in self._listeners:
            listener.put(event)

    def find(self, given: str) -> dict[str, Any] | None:
        """Return a container by its name or the beginning of its id."""
        for name, container in self.containers.items():
            if given == name or container["Id"].startswith(given):
                return container
        return None

    def listen(self) -> "queue.Queue[dict[str, Any] | None]":
        """Return where events arrive from now on."""
        listener: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._listeners.append(listener)
        return listener


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeEngine

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path).removeprefix(f"/v{_API}")
        if path == "/version":
            self._answer(200, {"ApiVersion": _API, "MinAPIVersion": "1.24", "Version": "0"})
        elif path == "/events":
            self._stream()
        elif path.startswith("/containers/") and path.endswith("/json"):
            given = path.removeprefix("/containers/").removesuffix("/json")
            found = self.server.find(given)
            if found is None:
                self._answer(404, {"message": f"No such container: {given}"})
            else:
                self._answer(200, found)
        else:
            self._answer(404, {"message": f"no such endpoint: {path}"})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        listener = self.server.listen()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while (event := listener.get()) is not None:
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing."""
