"""Whether pictures of a folder would replace other pictures that the store has under the same names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..images.decode import ImageError
from ..images.fetch import Fetcher
from ..images.tar import parse, place_of
from ..sources.locations import file_stamp
from ..sources.rows import SourceError
from ..store import Connection
from ..store.pins import StoredImage, has_images_elsewhere, has_pins, stored_images
from .photo_places import Place
from .photos import Notes, Photo


@dataclass(slots=True)
class Moved:
    """Pictures that the store knows from another place, where the same picture was."""

    photos: int = 0
    folders: set[str] = field(default_factory=set)  # where they were, with a slash at the end


def refuse_conflicts(conn: Connection, places: Sequence[Place]) -> Moved:
    """Raises SourceError if a pin of the store, or of another place, would get another picture.

    The same picture at another place is no conflict: the folder has moved. It is the same if its bytes are
    the same; where the earlier file is gone, if its size and time are, or the digest that the store knows.
    """
    moved = Moved()
    of_place: dict[str, Place] = {}
    for place in places:
        is_alone = len(places) == 1
        if is_alone and not place.is_archive and not has_images_elsewhere(conn, place.folder, place.prefix):
            return moved  # as it is for a folder that is ingested again
        if is_alone and not has_pins(conn):
            return moved
        for found in place.photos(Notes()):
            stored = stored_images(conn, [photo.pin_id for photo in found.photos])
            for photo in found.photos:
                if not is_alone and of_place.setdefault(photo.pin_id, place) is not place:
                    raise SourceError(
                        f"{of_place[photo.pin_id].path} and {place.path} both have a picture "
                        f"{photo.pin_id}: ingest them one after the other, each with its --prefix NAME"
                    )
                before = stored.get(photo.pin_id)
                if before is None or place_of(before.image) == photo.path:
                    continue
                if not _is_same(photo, before):
                    raise _conflict(place, photo, before)
                moved.photos += 1
                name = photo.pin_id[len(place.prefix) :]
                if place_of(before.image).endswith(f"/{name}"):
                    moved.folders.add(place_of(before.image)[: -len(name)])
    return moved


def with_known_digests(conn: Connection, photos: Iterable[Photo]) -> dict[str, str | None]:
    """{pin_id: image_sha256} of pictures that were elsewhere: they keep their digest, and their captions."""
    photos = list(photos)
    stored = stored_images(conn, [photo.pin_id for photo in photos])
    return {
        photo.pin_id: stored[photo.pin_id].image_sha256
        for photo in photos
        if photo.pin_id in stored and place_of(stored[photo.pin_id].image) != photo.path
    }


def _conflict(place: Place, photo: Photo, before: StoredImage) -> SourceError:
    name = os.path.basename(place.path).removesuffix(".tar") or "NAME"
    if place.prefix:
        name = f"{place.prefix.strip('/')}-2"
    return SourceError(
        f"{place.path} has another picture under a name that the store has already: {photo.pin_id} is "
        f"{place_of(before.image)} there. Nothing was written; give the pins of this folder names of their "
        f"own with --prefix, for instance --prefix {name}"
    )


def _is_same(photo: Photo, before: StoredImage) -> bool:
    """Whether the picture is the one that the pin has in the store, at another place."""
    stamp = photo.stamp or file_stamp(photo.path)
    if not before.image.startswith(("/", "tar://")):
        return before.image_sha256 is not None and _digest(photo.image) == before.image_sha256
    earlier_file = parse(before.image).path if before.image.startswith("tar://") else before.image
    if os.path.exists(earlier_file):
        if _size(photo.image, stamp) != _size(before.image, before.image_stamp):
            return False
        digest = _digest(before.image)
        return digest is not None and digest == _digest(photo.image)
    if stamp is not None and stamp == before.image_stamp:
        return _size(photo.image, stamp) == _size(before.image, before.image_stamp)
    return before.image_sha256 is not None and _digest(photo.image) == before.image_sha256


def _size(image: str, stamp: str | None) -> int | None:
    """The size of an image in bytes; the stamp of a file begins with it."""
    if image.startswith("tar://"):
        return parse(image).size
    return int(stamp.partition("-")[0]) if stamp else None


def _digest(image: str) -> str | None:
    """The SHA-256 of an image's bytes; None if they cannot be read."""
    try:
        return hashlib.sha256(Fetcher().fetch(image)).hexdigest()
    except ImageError:
        return None
