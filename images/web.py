"""Images by http:// and https://: from public addresses alone, within a limit of bytes and of time.

This is where a URL is refused. URLs come from strangers. Therefore a host is resolved here, once, and the
address that was checked is the one that is connected to. A server decides neither how long a fetch takes nor
how many bytes it reads.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
import zlib
from typing import Any

from ..common.version import __version__
from .decode import ImageError

REDIRECTS = 5
USER_AGENT = f"pincaption/{__version__} (image captioning)"


class WebClient:
    """Fetches images by URL, from many threads, over shared connections. Raises ImportError without httpx.

    `max_bytes` and `timeout` (seconds, redirects included) hold for each image. `allow_private` also permits
    addresses that are not public: for tests, and for image servers of the user's own network.
    """

    def __init__(self, *, max_bytes: int, timeout: float, allow_private: bool) -> None:
        self.max_bytes, self.timeout = max_bytes, timeout
        self._pool = _connection_pool(allow_private)

    def get(self, address: str) -> bytes:
        """The image at a URL. Raises `ImageError`."""
        import httpcore
        import httpx

        _deadline.at = time.monotonic() + self.timeout
        try:
            url = httpx.URL(address)
            for _ in range(REDIRECTS + 1):
                if url.scheme not in ("http", "https") or not url.host:
                    raise ImageError("a kind of address that is not supported")
                answer = self._get_once(url)
                if isinstance(answer, bytes):
                    return answer
                url = url.join(answer)
            raise ImageError("too many redirects")
        except (httpcore.TimeoutException, TimeoutError) as error:
            raise ImageError("timed out") from error
        except httpcore.ConnectError as error:
            raise ImageError("cannot connect") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, zlib.error) as error:
            raise ImageError("the server broke off or sent no proper answer") from error
        except (httpx.InvalidURL, httpcore.UnsupportedProtocol, ValueError) as error:
            raise ImageError("not a proper URL") from error

    def _get_once(self, url: Any) -> bytes | str:
        """The body as bytes, or the address of a redirect as text."""
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
                raise ImageError(too_large(self.max_bytes))
            return self._body(response, answered.get("content-encoding", "identity").lower())

    def _body(self, response: Any, encoding: str) -> bytes:
        """The body, unpacked. The limit of bytes holds for what is unpacked."""
        if encoding not in ("identity", "", "gzip", "deflate"):
            raise ImageError("a content encoding that was not asked for")
        unzip = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in ("gzip", "deflate") else None
        body = bytearray()
        for chunk in response.iter_stream():
            body += unzip.decompress(chunk, self.max_bytes + 1 - len(body)) if unzip else chunk
            if len(body) > self.max_bytes:
                raise ImageError(too_large(self.max_bytes))
        return bytes(body)


def too_large(max_bytes: int) -> str:
    """The reason for an image that has more than `max_bytes` bytes."""
    return f"more bytes than the limit of {max_bytes:,}"


_deadline = threading.local()  # .at: when this thread's current fetch must be over, by time.monotonic()


def _time_left() -> float:
    """Seconds until the deadline of this thread. Raises TimeoutError when it is over."""
    left: float = _deadline.at - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connection_pool(allow_private: bool) -> Any:
    """An httpcore pool that keeps to the deadline and connects only to addresses that were checked here."""
    import httpcore
    import httpx

    class Stream(httpcore.NetworkStream):
        """A connection whose every read and write has only what is left of the time for the whole fetch.

        With a limit for each read, a server could send a byte now and then and never end.
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

    return httpcore.ConnectionPool(
        httpx.create_ssl_context(trust_env=False),
        max_connections=None,
        max_keepalive_connections=20,
        keepalive_expiry=5,
        network_backend=Backend(),
    )


def _addresses(host: str, port: int, allow_private: bool) -> list[str]:
    """The numeric addresses of `host`. If one of them is not public, the host is refused altogether."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ImageError("cannot connect") from error
    addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    if not allow_private and not all(map(is_public, addresses)):
        raise ImageError("the address is private")
    return addresses


def is_public(address: str) -> bool:
    """Whether a numeric IP address is a single host of the public internet.

    An IPv6 address that contains an IPv4 address (mapped, 6to4, NAT64) is judged by that one.
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
        if ip not in ipaddress.ip_network("2000::/3"):  # the only part of IPv6 that hosts have been given
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
