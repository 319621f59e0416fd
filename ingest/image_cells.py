"""The cell that says where a pin's image is: a path, an address, bytes, or several of these."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any, NamedTuple

from ..images.endings import IMAGE_ENDINGS
from ..images.parquet import reference
from ..sources.cells import RowError, is_placeholder, is_unicode, listed, text_of
from ..sources.locations import file_stamp
from ..sources.rows import ImageBytes, is_missing

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", re.IGNORECASE)
_PLAIN_ADDRESS = re.compile(r"(?:https?|s3|gs)://[\w./%?=&:@~+-]+", re.ASCII)  # as most are
_HOST = re.compile(r"(?://(?=[\w-]+(?:\.[\w-]+)+(?::\d+)?(?:[/?#]|$))|(?=www\.[\w-]+[./:?#]))", re.IGNORECASE)
# Between two addresses. An address may hold a comma or a semicolon, so what follows must be one, too.
_BETWEEN_ADDRESSES = re.compile(
    r"\s*\|\s*|[,;]\s+|[,;\s]\s*(?=[A-Za-z][A-Za-z0-9+.-]+://|//[\w-]+\.|www\.)", re.IGNORECASE
)
_BETWEEN_FILES = re.compile(r"\s*[|,;\n]\s*")
_SEPARATORS = frozenset("|,;\n")


class ImageCell(NamedTuple):
    """What a cell says. The SHA-256 is None where the image's bytes are not at hand."""

    image: str | None = None  # as `pins.image` has it
    sha256: str | None = None
    stamp: str | None = None  # changes when the image does
    left_out: int = 0  # other images in the cell, which are not taken
    not_found: bool = False  # a file of this machine that is not there


NO_IMAGE = ImageCell()


def read_image_cell(value: Any, base: str, image_root: str | None) -> ImageCell:
    """The image of a cell; of several the first. A relative path starts at `base`. Raises RowError.

    With `image_root`, a file must lie below that folder.
    """
    if type(value) is str and _PLAIN_ADDRESS.fullmatch(value):
        return ImageCell(value)
    left_out = 0
    items = listed(value)
    if items is not None:
        present = [item for item in items if not _is_missing(item)]
        if not present:
            return NO_IMAGE
        value, left_out = present[0], len(present) - 1
    if isinstance(value, ImageBytes):
        digest = hashlib.sha256(value.data).hexdigest()
        return ImageCell(reference(value.path, value.column, value.row), digest, digest, left_out)
    if _is_missing(value):
        return NO_IMAGE
    text = (text_of("image", value) or "").strip()
    if not _SEPARATORS.isdisjoint(text) or " " in text:
        parts = _several(text, base)
        text, left_out = parts[0], left_out + len(parts) - 1
    image = _where(text, base, image_root)
    if not image.startswith("/"):
        return ImageCell(image, left_out=left_out)
    stamp = file_stamp(image)
    return ImageCell(image, None, stamp, left_out, not_found=stamp is None)


def _is_missing(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, str) and is_placeholder(value))


def _several(text: str, base: str) -> list[str]:
    """The addresses or files of a cell, at least one. A file whose name has a comma is one file."""
    if text[0] == "{" and text[-1] == "}":  # an array of Postgres
        inside = [part.strip().strip('"') for part in text[1:-1].split(",")]
        return [part for part in inside if not _is_missing(part)] or [text]
    is_address = bool(_SCHEME.match(text) or _HOST.match(text))
    if text.lower().startswith("data:") or (not is_address and os.path.exists(_absolute(text, base))):
        return [text]
    parts = (_BETWEEN_ADDRESSES if is_address else _BETWEEN_FILES).split(text)
    parts = [part for part in parts if not _is_missing(part)]
    if not parts or (not is_address and not all(map(_looks_like_an_image, parts))):
        return [text]
    return parts


def _looks_like_an_image(text: str) -> bool:
    return (
        bool(_SCHEME.match(text) or _HOST.match(text)) or os.path.splitext(text)[1].lower() in IMAGE_ENDINGS
    )


def _where(text: str, base: str, image_root: str | None) -> str:
    """An address with its scheme, or an absolute path. Raises RowError."""
    if ":" in text and (scheme := _SCHEME.match(text)):
        if scheme[0].lower() == "file://":
            raise RowError("image is a file:// address: give the path alone")
        if scheme[0].lower() in ("parquet://", "tar://", "data:"):
            # parquet:// is captioner's own address: a row must not point into files of its choice
            raise RowError("image is an address that captioner does not read")
        return text
    path = _absolute(text, base)
    if (host := _HOST.match(text)) and not os.path.exists(path):
        return f"https://{text[host.end() :]}"
    if "\\" in text and not os.path.exists(path):  # as Windows writes paths
        slashes = _absolute(text.replace("\\", "/"), base)
        path = slashes if os.path.exists(slashes) else path
    if image_root and not path.startswith(image_root.rstrip("/") + "/"):
        raise RowError("image lies outside --image-root")
    if not is_unicode(path):
        raise RowError("the image's folder has a name that is not valid UTF-8")
    return path


def _absolute(text: str, base: str) -> str:
    # normpath keeps two slashes at the beginning, which POSIX allows to mean something else
    return os.path.normpath(f"/{text.lstrip('/')}" if text.startswith("/") else f"{base}/{text}")
