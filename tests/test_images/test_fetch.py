"""How images are fetched: from files, Parquet, object stores, and a real web server on this machine.

No test leaves the loopback interface.
"""

import gzip
import os
import socket
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pincaption.images.decode import ImageError
from pincaption.images.fetch import Fetcher
from pincaption.images.parquet import reference
from pincaption.images.web import USER_AGENT, is_public

IMAGE = b"\x89PNG, or as good as" * 50


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers)))
        name, _, argument = self.path[1:].partition("/")
        answer = getattr(self, name, None)
        if answer:
            answer(argument)
        else:
            self.send(IMAGE)

    def send(self, body, status=200, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def status(self, code):
        self.send(b"<html>sorry</html>", int(code))

    def to(self, target):
        self.send(b"", 302, Location=target, Set_Cookie="tracked=yes")

    def hops(self, left):
        self.send(IMAGE) if left == "0" else self.send(b"", 301, Location=f"/hops/{int(left) - 1}")

    def gzipped(self, megabytes):
        self.send(gzip.compress(bytes(int(megabytes) * 1_000_000) or IMAGE), Content_Encoding="gzip")

    def deflated(self, _):
        self.send(zlib.compress(IMAGE), Content_Encoding="deflate")

    def odd(self, _):
        self.send(b"?", Content_Encoding="br")

    def endless(self, _):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    def short(self, _):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"only this")
        self.close_connection = True

    def drip(self, where):
        if where == "body":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
        else:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(300):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):  # the tests have clients that hang up
        pass


@pytest.fixture
def site():
    server = Server(("127.0.0.1", 0), Site)
    server.seen = []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetcher():
    return Fetcher(max_bytes=1_000_000, timeout=60, allow_private=True)


def reason(fetcher, image):
    with pytest.raises(ImageError) as error:
        fetcher.fetch(image)
    return str(error.value)


# --- files


def test_a_local_file(fetcher, tmp_path):
    path = tmp_path / "a b#%20ü.png"
    path.write_bytes(IMAGE)
    assert fetcher.fetch(str(path)) == IMAGE


def test_reasons_for_a_file(fetcher, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(bytes(1_000_001))
    (tmp_path / "limit").write_bytes(bytes(1_000_000))
    assert len(fetcher.fetch(str(tmp_path / "limit"))) == 1_000_000
    for image in (None, "", "  "):
        assert reason(fetcher, image) == "no image"
    for image in (str(tmp_path / "gone"), str(tmp_path / "large" / "below"), "/null\0character"):
        assert reason(fetcher, image) == "image file not found"
    assert reason(fetcher, str(tmp_path / "empty")) == "image file is empty"
    assert reason(fetcher, str(tmp_path / "large")) == "more bytes than the limit of 1,000,000"
    assert reason(fetcher, "/" + "x" * 5000) == "image file cannot be read"
    if os.geteuid():
        (tmp_path / "limit").chmod(0)
        assert reason(fetcher, str(tmp_path / "limit")) == "no permission to read the image file"


@pytest.mark.timeout(60)
def test_only_regular_files_are_opened_and_nothing_blocks(fetcher, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 characters
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for path in (tmp_path / "pipe", tmp_path / "socket", tmp_path, "/dev/zero", "/dev/tty"):
            assert reason(fetcher, str(path)) == "not a regular file"


@pytest.mark.parametrize(
    "image",
    [
        "file:///etc/passwd",
        "ftp://example.com/a",
        "data:image/png;base64,AAAA",
        "gopher://x",
        "local:///etc/passwd",
        "s3://a::file:///etc/passwd",
    ],
)
def test_other_kinds_of_address_are_refused(fetcher, image):
    assert reason(fetcher, image) == "a kind of address that is not supported"


def test_relative_paths_are_refused(fetcher):
    assert reason(fetcher, "images/a.png") == "neither an absolute path nor a URL"


def test_a_row_of_a_parquet_file(fetcher, tmp_path):
    path = tmp_path / "pins.parquet"
    pq.write_table(pa.table({"image": [IMAGE, None, b"", bytes(1_000_001)]}), path)
    assert fetcher.fetch(reference(path, "image", 0)) == IMAGE
    assert reason(fetcher, reference(path, "image", 1)) == "no image in this row of the Parquet file"
    assert reason(fetcher, reference(path, "image", 2)) == "image file is empty"
    assert reason(fetcher, reference(path, "image", 3)) == "more bytes than the limit of 1,000,000"
    assert reason(fetcher, reference(path, "image", 4)) == "the Parquet file has fewer rows"
    assert reason(fetcher, reference(tmp_path / "gone", "image", 0)) == "the Parquet file is not there"
    assert reason(fetcher, "parquet:nonsense") == "not a reference to an image in a Parquet file"


def test_an_object_store(fetcher):
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    # a real file system of fsspec, under the scheme of an object store
    fsspec.register_implementation("oss", MemoryFileSystem, clobber=True)
    MemoryFileSystem().pipe({"oss://bucket/a.png": IMAGE, "oss://bucket/large": bytes(2_000_000)})
    assert fetcher.fetch("oss://bucket/a.png") == IMAGE
    assert reason(fetcher, "oss://bucket/large") == "more bytes than the limit of 1,000,000"
    assert reason(fetcher, "oss://bucket/gone") == "image file not found"


# --- HTTP


def test_a_url(fetcher, site):
    assert fetcher.fetch(site.url + "/a%20b.png?width=7") == IMAGE
    path, headers = site.seen[0]
    assert path == "/a%20b.png?width=7"
    assert headers["Host"] == f"127.0.0.1:{site.server_port}"
    assert headers["User-Agent"] == USER_AGENT


def test_no_cookies_and_no_credentials(fetcher, site, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    host = site.url.removeprefix("http://")
    assert fetcher.fetch(f"http://me:secret@{host}/to/{site.url}/a") == IMAGE
    assert fetcher.fetch(site.url + "/b") == IMAGE
    for _, headers in site.seen:
        assert not {"Cookie", "Authorization", "Proxy-Authorization"} & set(headers)


def test_redirects(fetcher, site):
    assert fetcher.fetch(site.url + "/hops/5") == IMAGE
    assert reason(fetcher, site.url + "/hops/6") == "too many redirects"
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/"):
        assert reason(fetcher, f"{site.url}/to/{target}") == "a kind of address that is not supported"


@pytest.mark.parametrize("status", [204, 304, 403, 404, 500])
def test_status(fetcher, site, status):
    assert reason(fetcher, f"{site.url}/status/{status}") == f"HTTP {status}"


@pytest.mark.parametrize("path", ["endless/", "gzipped/100"])
def test_the_limit_of_bytes_holds_for_unpacked_bytes(site, path):
    fetcher = Fetcher(max_bytes=1_000_000, timeout=200, allow_private=True)
    began = time.thread_time()
    assert reason(fetcher, f"{site.url}/{path}") == "more bytes than the limit of 1,000,000"
    assert time.thread_time() - began < 3


def test_encodings(fetcher, site):
    assert fetcher.fetch(site.url + "/gzipped/0") == IMAGE
    assert fetcher.fetch(site.url + "/deflated/") == IMAGE
    assert reason(fetcher, site.url + "/odd/") == "a content encoding that was not asked for"


@pytest.mark.parametrize("where", ["body", "headers"])
def test_the_limit_of_time_is_for_the_whole_fetch_and_not_for_each_read(site, where):
    began = time.monotonic()
    assert reason(Fetcher(timeout=0.5, allow_private=True), f"{site.url}/drip/{where}") == "timed out"
    assert time.monotonic() - began < 20  # the server sends for 30 s, and is never silent for half a second


def test_a_server_that_never_answers_or_is_not_there(fetcher, site):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert reason(Fetcher(timeout=0.3, allow_private=True), f"http://127.0.0.1:{port}/") == "timed out"
    assert reason(fetcher, f"http://127.0.0.1:{port}/") == "cannot connect"
    assert reason(fetcher, f"https://127.0.0.1:{site.server_port}/") == "cannot connect"  # it speaks no TLS
    assert reason(fetcher, site.url + "/short/") == "the server broke off or sent no proper answer"


@pytest.mark.parametrize(
    "image",
    ["http://", "http://:80/", "http://[::1", "http://a b/", "https://\x01/", "http://127.0.0.1:99999/"],
)
def test_broken_urls_have_a_reason(fetcher, image):
    assert reason(fetcher, image) in (
        "not a proper URL",
        "a kind of address that is not supported",
        "cannot connect",
    )


def test_connections_are_shared_by_threads(fetcher, site):
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(fetcher.fetch, [f"{site.url}/{i}" for i in range(200)])) == {IMAGE}
    assert len(site.seen) == 200


def test_without_httpx_the_reason_says_what_to_install(fetcher, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert reason(fetcher, "https://127.0.0.1/") == "remote images need: pip install 'pincaption[remote]'"
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert reason(fetcher, "s3://bucket/a.png") == "remote images need: pip install 'pincaption[remote]'"


# --- private addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
    ],
)
def test_private_addresses_are_never_connected_to(site, host):
    assert reason(Fetcher(timeout=3), f"http://{host}:{site.server_port}/") in (
        "the address is private",
        "cannot connect",
    )
    assert site.seen == []


def test_the_reason_says_that_an_address_is_private(site):
    assert reason(Fetcher(), site.url) == "the address is private"


def test_is_public():
    for address in ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"]:
        assert is_public(address)
    for address in [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::808:808",
        "2002:7f00:1::",
        "2001:db8::1",
        "2001::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fd00::1",
        "ff02::1",
        "",
        "localhost",
    ]:
        assert not is_public(address), address
