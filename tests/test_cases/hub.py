"""A model hub on this machine that speaks the protocol of huggingface.co's files, for its real client."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """Serves the files of folders: `repositories` maps owner/name to a folder.

    Safetensors and .bin files are kept apart, as on the hub: `resolve` redirects to another address, with
    size and digest in headers. `claimed` overrides the size that is said of a file. `breaks` maps a file to
    how its next connections end: ("fin" or "rst", after how many bytes). A `silent` hub accepts connections
    and does not answer.
    """

    repositories: dict[str, Path]
    claimed: dict[str, int] = field(default_factory=dict)
    breaks: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    says_sizes: bool = True
    silent: bool = False
    served: list[str] = field(default_factory=list)  # the files that were downloaded, with the first byte
    lock: threading.Lock = field(default_factory=threading.Lock)
    ends: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ends.set()
        self.server.shutdown()
        self.server.server_close()

    def downloads(self, ending: str = "") -> list[str]:
        return [line for line in self.served if line.split()[0].endswith(ending)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.hub.silent:
            self.hub.ends.wait()
            return
        path, _, query = self.path.partition("?")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._info(*found.groups(), sizes="blobs=" in query)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*found.groups())
        elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self._file(found[2], (self.hub.repositories[found[1]] / found[2]).read_bytes(), {})
        else:
            self._answer(404, b"{}", {})

    def _info(self, name: str, revision: str | None, *, sizes: bool) -> None:
        folder = self.hub.repositories.get(name)
        if folder is None:
            return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if revision not in (None, "main", COMMIT):
            return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        siblings = [
            {"rfilename": str(file.relative_to(folder))}
            | ({"size": self._size(file)} if sizes and self.hub.says_sizes else {})
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        ]
        info = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
        return self._answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, filename: str) -> None:
        file = self.hub.repositories[name] / filename
        headers = {"X-Repo-Commit": COMMIT}
        if not file.is_file():
            return self._answer(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        if filename.endswith((".safetensors", ".bin")):
            headers |= {
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(self._size(file)),
                "Location": f"{self.hub.address.replace('127.0.0.1', 'localhost')}/cdn/{name}/{filename}",
            }
            return self._answer(302, b"", headers)
        return self._file(filename, content, headers | {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def _file(self, filename: str, content: bytes, headers: dict[str, str]) -> None:
        begin = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])  # type: ignore[index]
        rest = content[begin:]
        if begin:
            headers |= {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
        self.send_response(206 if begin else 200)
        for name, value in {**headers, "Content-Length": str(len(rest)), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with self.hub.lock:
            self.hub.served.append(f"{filename} {begin}")
            how, after = (self.hub.breaks.get(filename) or [("", 0)]).pop(0)
        if not how:
            self.wfile.write(rest)
            return
        self.wfile.write(rest[:after])
        self.wfile.flush()
        self.close_connection = True
        if how == "rst":  # the kernel sends a reset if a socket is closed that must not linger
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _size(self, file: Path) -> int:
        return self.hub.claimed.get(file.name, file.stat().st_size)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass
