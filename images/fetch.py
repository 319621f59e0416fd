"""From what `pins.image` holds to the bytes of the image.

An image is in a file, in a row of a Parquet file, in a tar archive, at a URL, or in an object store. These
references come from strangers. So only regular files are opened, only public addresses are connected to (see
`web.py`), and every fetch has a limit of bytes.
"""

from __future__ import annotations

import os
import re
import threading

from ..common.files import NotAFile, open_regular
from .decode import ImageError
from .parquet import ParquetImages
from .tar import read_member
from .web import WebClient, too_large

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "hf"}  # schemes, by fsspec's names

_NO_REMOTE = "remote images need: pip install 'pincaption[remote]'"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class Fetcher:
    """Fetches images, from many threads.

    `max_bytes` and `timeout` (seconds) hold for each image; `timeout` is for URLs. `allow_private` also
    permits URLs whose address is not public: for tests, and for image servers of the user's own network.
    """

    def __init__(
        self, *, max_bytes: int = 50_000_000, timeout: float = 30.0, allow_private: bool = False
    ) -> None:
        self.max_bytes, self.timeout, self.allow_private = max_bytes, timeout, allow_private
        self._parquet = ParquetImages()
        self._web: WebClient | None = None
        self._web_lock = threading.Lock()

    def fetch(self, image: str | None) -> bytes:
        """The bytes of an image by its absolute path, `parquet:` or `tar:` reference, URL or other address.

        Raises `ImageError`, whose sentence can be counted.
        """
        if not image or not image.strip():
            raise ImageError("no image")
        match = _SCHEME.match(image)
        scheme = match[1].lower() if match else ""
        if image.startswith("/"):
            data = self._from_file(image)
        elif scheme == "parquet":
            data = self._from_parquet(image)
        elif scheme == "tar":
            data = read_member(image, self.max_bytes)
        elif scheme in ("http", "https"):
            data = self._from_web(image)
        elif scheme in OBJECT_STORES and "::" not in image:  # with :: fsspec chains addresses of any scheme
            data = self._from_object_store(scheme, image)
        elif scheme:
            raise ImageError("a kind of address that is not supported")
        else:
            raise ImageError("neither an absolute path nor a URL")
        if not data:
            raise ImageError("image file is empty")
        if len(data) > self.max_bytes:
            raise ImageError(too_large(self.max_bytes))
        return data

    def _from_file(self, path: str) -> bytes:
        try:
            with open_regular(path) as file:
                if os.fstat(file.fileno()).st_size > self.max_bytes:
                    raise ImageError(too_large(self.max_bytes))
                return file.read(self.max_bytes + 1)
        except NotAFile as error:
            raise ImageError("not a regular file") from error
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL character
            raise ImageError("image file not found") from error
        except PermissionError as error:
            raise ImageError("no permission to read the image file") from error
        except OSError as error:
            raise ImageError("image file cannot be read") from error

    def _from_parquet(self, image: str) -> bytes:
        try:
            return self._parquet.read(image)
        except (LookupError, OSError, ValueError) as error:
            raise ImageError(str(error.args[0])) from error

    def _from_web(self, image: str) -> bytes:
        try:
            with self._web_lock:
                if self._web is None:
                    self._web = WebClient(
                        max_bytes=self.max_bytes, timeout=self.timeout, allow_private=self.allow_private
                    )
        except ImportError as error:
            raise ImageError(_NO_REMOTE) from error
        return self._web.get(image)

    def _from_object_store(self, scheme: str, image: str) -> bytes:
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
