"""Small pictures for the pages: made once, and kept in the store by the digest of the image."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from ..common.terminal import OnStep, no_step
from ..images.thumbnails import Picture, pictures
from ..store import Connection
from . import stored

SIDE = 360  # pixels of the longer side
MAX_BYTES = 40_000
BATCH = 100  # pictures committed together
RETRY_AFTER = timedelta(days=1)  # before an image that could not be read is tried again


def make_thumbnails(store: Connection, index: Connection, n: int, on_step: OnStep = no_step) -> int:
    """Makes at most `n` thumbnails that are missing in the store, and returns how many it made.

    Pins that were captioned or failed come first. `index` is the searchable copy, which keeps the reason for
    an image that cannot be read. You may stop this at any time: every batch is committed.
    """
    since = (datetime.now(UTC) - RETRY_AFTER).isoformat()
    wanted = stored.images_without_thumbnail(store, index, n, since)
    # Pins may share an image: each image is read once.
    places = list({place.image_sha256 or f"pin {place.pin_id}": place for place in wanted}.values())
    images = ((place.image, place.image_sha256) for place in places)
    shown = zip(places, pictures(images, SIDE, max_bytes=MAX_BYTES), strict=True)
    made = done = 0
    while batch := list(itertools.islice(shown, BATCH)):
        good = [(place, picture) for place, picture in batch if isinstance(picture, Picture)]
        stored.write_thumbnails(store, good)
        stored.write_failures(index, [(place, reason) for place, reason in batch if isinstance(reason, str)])
        made, done = made + len(good), done + len(batch)
        on_step("pictures", done, len(places))
    return made
