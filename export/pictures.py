"""Exports that go back to pictures: sidecar, imagefolder and webdataset. Complete, or not there at all."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..common.terminal import OnStep, no_step
from ..images.decode import ImageError
from ..images.fetch import Fetcher
from ..store import Connection, one_moment, rules
from ..store.connection import StoreError
from ..store.described import DescribedPin, described_pins
from ..store.pins import count_pins
from .folder import new_folder
from .manifest import PICTURES, Manifest, write_manifest
from .picture_writers import PictureWriter, picture_writer

PICTURE_FORMATS = ("sidecar", "imagefolder", "webdataset")
THREADS = 4  # that read pictures; so many pictures and a few more are in memory
NO_TEXT = "neither a caption nor a text of its own"
CHANGED = "the image has changed since it was captioned"


def export_pictures(
    conn: Connection,
    out_dir: str | Path,
    format: str,
    *,
    recipe_id: str | None = None,
    shards: int | None = None,
    on_step: OnStep = no_step,
) -> dict[str, Any]:
    """Writes the pins that have a text to the folder `out_dir`, in place of an earlier export.

    `shards` is the number of archives of "webdataset". Returns `rows`, `recipes`, `left_out` {reason: pins},
    `truncated` (captions of images that end early), `files` and `bytes`. Raises StoreError if nothing can be
    written, or if `out_dir` holds anything but an export.
    """
    left_out, recipes = Counter[str](), Counter[str]()
    rows = truncated = 0
    with new_folder(Path(out_dir)) as folder, one_moment(conn):
        pins = count_pins(conn)
        per_shard = None
        if shards:
            with_text = sum(pin.text is not None for pin in described_pins(conn, recipe_id))
            per_shard = max(1, -(-with_text // shards))
        with picture_writer(format, folder, per_shard) as writer:
            for pin, picture in _with_pictures(described_pins(conn, recipe_id), writer):
                if isinstance(picture, str):
                    left_out[picture] += 1
                else:
                    writer.add(pin, picture)
                    rows += 1
                    truncated += pin.truncated
                    if pin.caption_recipe:
                        recipes[pin.caption_recipe] += 1
                on_step("writing", rows + left_out.total(), pins)
        if not rows:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in left_out.most_common(3))
            raise StoreError(
                "no pin can be exported: " + (reasons or "the store has no pins") + f"; {_mend(left_out)}"
            )
        manifest: dict[str, Any] = {
            "format": PICTURES,
            "layout": format,
            "rows": rows,
            "recipes": dict(sorted(recipes.items())),
            "recipe": recipe_id or "current",
            "left_out": dict(left_out.most_common()),
            "truncated": truncated,
            "files": writer.files,
        }
        write_manifest(folder, Manifest(**manifest))  # type: ignore[typeddict-item]
    kept = ("rows", "recipes", "left_out", "truncated")
    return {name: manifest[name] for name in kept} | {
        "embeddings": {},
        "files": len(writer.files),
        "bytes": sum(file["bytes"] for file in writer.files),
        "folder": str(out_dir),
    }


def _mend(left_out: Counter[str]) -> str:
    """What a user can do where no pin can be exported for these reasons."""
    mends = []
    if not left_out:
        mends.append("bring pins in with `captioner ingest`, and caption them with `captioner run`")
    if left_out.keys() & {NO_TEXT, CHANGED}:
        mends.append("caption the pins with `captioner run`")
    if left_out.keys() - {NO_TEXT, CHANGED}:
        mends.append("put the pictures back, or ingest the pins again from where the pictures are now")
    return "; ".join(mends)


def _with_pictures(
    pins: Iterator[DescribedPin], writer: PictureWriter
) -> Iterator[tuple[DescribedPin, bytes | str]]:
    """Each pin, in order, with the bytes of its picture, or the reason why it is left out."""
    fetcher = Fetcher()
    waiting: deque[tuple[DescribedPin, Future[bytes | str]]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        for pin in pins:
            if pin.text is None:
                yield pin, NO_TEXT
            elif not writer.needs_picture:
                yield pin, b""
            else:
                waiting.append((pin, threads.submit(_picture, fetcher, pin)))
                if len(waiting) > 2 * THREADS:
                    first, future = waiting.popleft()
                    yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _picture(fetcher: Fetcher, pin: DescribedPin) -> bytes | str:
    try:
        data = fetcher.fetch(pin.image)
    except ImageError as error:
        return str(error)
    made_from_image = pin.caption and pin.caption_recipe != rules.PERSON
    if made_from_image and hashlib.sha256(data).hexdigest() != pin.image_sha256:
        return CHANGED
    return data
