"""From what `pins.image` holds to the bytes of the image: a file, a row of a Parquet file, a URL, an object
store.

References come from strangers: nothing but regular files is opened, nothing but public addresses is connected
to, and neither size nor time is left to the other side.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
import threading
import time
import zlib
from typing import Any

from ..common.version import __version__
from .decode import ImageError
from .parquet import ParquetImages

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "hf"}  # by fsspec's names
REDIRECTS = 5
USER_AGENT = f"pincaption/{__version__} (image captioning)"

_NO_REMOTE = "remote images need: pip install 'pincaption[remote]'"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class Fetcher:
    """Fetches images, from many threads. `max_bytes` and `timeout` (seconds, over all) hold for each image.

    `allow_private` lifts the ban on private addresses: for tests, and for image servers of one's own network.
    """

    def __init__(
        self, *, max_bytes: int = 50_000_000, timeout: float = 30.0, allow_private: bool = False
    ) -> None:
        self.max_bytes, self.timeout, self.allow_private = max_bytes, timeout, allow_private
        self._too_large = f"more bytes than the limit of {max_bytes:,}"
        self._parquet = ParquetImages()
        self._pool: Any = None
        self._pool_lock = threading.Lock()

    def fetch(self, image: str | None) -> bytes:
        """The bytes that `image` refers to: an absolute path, `parquet:`, `http(s):` or an object store's
        address.

        Raises `ImageError` with a reason that can be counted.
        """
        if not image or not image.strip():
            raise ImageError("no image")
        match = _SCHEME.match(image)
        scheme = match[1].lower() if match else ""
        if image.startswith("/"):
            data = self._file(image)
        elif scheme == "parquet":
            data = self._parquet_row(image)
        elif scheme in ("http", "https"):
            data = self._http(image)
        elif scheme in OBJECT_STORES and "::" not in image:  # by :: fsspec chains addresses, of any scheme
            data = self._object(scheme, image)
        elif scheme:
            raise ImageError("a kind of address that is not supported")
        else:
            raise ImageError("neither an absolute path nor a URL")
        if not data:
            raise ImageError("image file is empty")
        if len(data) > self.max_bytes:
            raise ImageError(self._too_large)
        return data

    def _file(self, path: str) -> bytes:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # looked at before: opening a device may do something
                raise ImageError("not a regular file")
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
                info = os.fstat(file.fileno())
                if not stat.S_ISREG(info.st_mode):
                    raise ImageError("not a regular file")
                if info.st_size > self.max_bytes:
                    raise ImageError(self._too_large)
                return file.read(self.max_bytes + 1)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a null character
            raise ImageError("image file not found") from error
        except PermissionError as error:
            raise ImageError("no permission to read the image file") from error
        except OSError as error:
            raise ImageError("image file cannot be read") from error

    def _parquet_row(self, image: str) -> bytes:
        try:
            return self._parquet.read(image)
        except (LookupError, OSError, ValueError) as error:
            raise ImageError(str(error.args[0])) from error

    def _object(self, scheme: str, image: str) -> bytes:
        try:
            import fsspec

            return bytes(fsspec.filesystem(scheme).cat_file(image, start=0, end=self.max_bytes + 1))
        except ImportError as error:
            raise ImageError(_NO_REMOTE) from error
        except FileNotFoundError as error:
            raise ImageError("image file not found") from error
        except PermissionError as error:
            raise ImageError("no permission to read the image file") from error
        except TimeoutError as error:
            raise ImageError("timed out") from error
        except Exception as error:  # every object store has exceptions of its own
            raise ImageError("cannot read from the object store") from error

    def _http(self, address: str) -> bytes:
        try:
            import httpcore
            import httpx
        except ImportError as error:
            raise ImageError(_NO_REMOTE) from error
        with self._pool_lock:
            if self._pool is None:
                self._pool = _connection_pool(self.allow_private)
        _deadline.at = time.monotonic() + self.timeout
        try:
            url = httpx.URL(address)
            for _ in range(REDIRECTS + 1):
                if url.scheme not in ("http", "https") or not url.host:
                    raise ImageError("a kind of address that is not supported")
                found = self._get(url)
                if isinstance(found, bytes):
                    return found
                url = url.join(found)
            raise ImageError("too many redirects")
        except (httpcore.TimeoutException, TimeoutError) as error:
            raise ImageError("timed out") from error
        except httpcore.ConnectError as error:
            raise ImageError("cannot connect") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, zlib.error) as error:
            raise ImageError("the server broke off or sent no proper answer") from error
        except (httpx.InvalidURL, httpcore.UnsupportedProtocol, ValueError) as error:
            raise ImageError("not a proper URL") from error

    def _get(self, url: Any) -> bytes | str:
        """The body, or where a redirect points to."""
        import httpcore

        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers = {"User-Agent": USER_AGENT, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self.timeout)
        with self._pool.stream("GET", target, headers=headers, extensions={"timeout": limits}) as response:
            answered = {
                name.lower().decode("latin-1"): value.decode("latin-1") for name, value in response.headers
            }
            if response.status in (301, 302, 303, 307, 308) and "location" in answered:
                return str(answered["location"])
            if response.status != 200:
                raise ImageError(f"HTTP {response.status}")
            if int(answered.get("content-length") or 0) > self.max_bytes:
                raise ImageError(self._too_large)
            encoding = answered.get("content-encoding", "identity").lower()
            if encoding not in ("identity", "", "gzip", "deflate"):
                raise ImageError("a content encoding that was not asked for")
            unzip = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in ("gzip", "deflate") else None
            body = bytearray()
            for chunk in response.iter_stream():
                body += unzip.decompress(chunk, self.max_bytes + 1 - len(body)) if unzip else chunk
                if len(body) > self.max_bytes:
                    raise ImageError(self._too_large)
            return bytes(body)


_deadline = threading.local()  # .at: when the fetch that this thread is at must be over, by time.monotonic()


def _time_left() -> float:
    left: float = _deadline.at - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connection_pool(allow_private: bool) -> Any:
    """An httpcore pool that connects only to addresses that it has resolved and checked, and keeps to the
    deadline.
    """
    import httpcore
    import httpx

    class Stream(httpcore.NetworkStream):
        """Each read gets what is left of the time for all: a server that sends a byte now and then gains
        nothing.
        """

        def __init__(self, stream: httpcore.NetworkStream) -> None:
            self._stream = stream
            self.close, self.get_extra_info = stream.close, stream.get_extra_info  # type: ignore[method-assign]

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return self._stream.read(max_bytes, _time_left())

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            self._stream.write(buffer, _time_left())

        def start_tls(
            self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
        ) -> Stream:
            return Stream(self._stream.start_tls(ssl_context, server_hostname, _time_left()))

    class Backend(httpcore.SyncBackend):
        def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> Stream:  # type: ignore[override]
            failed: Exception = httpcore.ConnectError()
            for address in _addresses(host, port, allow_private):
                try:
                    return Stream(super().connect_tcp(address, port, _time_left(), **options))
                except httpcore.ConnectError as error:
                    failed = error
            raise failed

    context = httpx.create_ssl_context(trust_env=False)
    return httpcore.ConnectionPool(
        context,
        max_connections=None,
        max_keepalive_connections=20,
        keepalive_expiry=5,
        network_backend=Backend(),
    )


def _addresses(host: str, port: int, allow_private: bool) -> list[str]:
    """The numeric addresses of `host`. One that is not public condemns all of them."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ImageError("cannot connect") from error
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    if not allow_private and not all(map(is_public, addresses)):
        raise ImageError("the address is private")
    return addresses


def is_public(address: str) -> bool:
    """Whether a numeric IP address is one host of the public internet, in whichever form an IPv4 address is
    wrapped.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
        if ip not in ipaddress.ip_network("2000::/3"):  # all that is given out
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
