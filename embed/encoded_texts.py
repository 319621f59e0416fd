"""The vectors of texts by an encoder that is not trained, kept on disk.

Such an encoder gives a text the same vector at every step and in every training, so each text is encoded
once. The vectors lie in the user's cache, in a folder named by the encoder. It may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ..common.files import whole
from ..common.terminal import OnStep, no_step
from .distributed import gathered, process_count, process_rank
from .errors import EmbedError
from .text_encoder import TextEncoder

PART_TEXTS = 20_000  # texts of a file: a training that is killed loses the work on fewer
LOCK = "lock"
KEY_BYTES = 8  # of a text's digest: with 10 million texts, two share one with a chance of 1 in 370,000


class EncodedTexts:
    """The vectors of texts by one encoder, float16, in the files of a folder.

    A file NAME.vectors.npy holds vectors, and NAME.keys.npy the digests of their texts. The digests are
    written last. Several processes may add texts at the same time.
    """

    def __init__(self, encoder: TextEncoder, folder: Path | None = None):
        """`folder`: where the files lie; None: in the user's cache. Raises EmbedError for a bad folder."""
        self.encoder = encoder
        self.folder = (folder or user_cache()) / encoder.digest()
        self._read()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, texts: Iterable[Sequence[str]], on_step: OnStep = no_step) -> int:
        """Encodes the texts that are not there yet. Returns how many this process encoded.

        `texts` come in lists, which are not held in memory. Under `accelerate launch` each process encodes a
        part of them, and waits for the others. Raises EmbedError if the folder cannot be written.
        """
        added, rank, processes = 0, process_rank(), process_count()
        for number, part in enumerate(self._missing(texts)):
            if number % processes == rank:

                def on_done(done: int, before: int = added) -> None:
                    on_step("encoding texts", before + done, None)

                self._write(part, on_done)
                added += len(part)
        gathered(0)
        self._read()
        return added

    def vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """[texts, width] float32, of length 1. Texts that were never added are encoded now, and not kept."""
        places = self._places(texts)
        found = places >= 0
        vectors = np.empty((len(texts), self.encoder.width), np.float16)
        parts, rows = self._part[places[found]], self._row[places[found]]
        for part in np.unique(parts):
            of_part = np.flatnonzero(found)[parts == part]
            vectors[of_part] = self._files[part][rows[parts == part]]
        if not found.all():
            missing = np.flatnonzero(~found)
            vectors[missing] = self._encode([texts[place] for place in missing.tolist()])
        return torch.from_numpy(vectors).float()

    def has(self, texts: Sequence[str]) -> np.ndarray:
        """bool [texts]: whether their vectors are there."""
        return self._places(texts) >= 0

    def _places(self, texts: Sequence[str]) -> np.ndarray:
        """The places of texts in `_keys`, -1 for those that are not there."""
        return _find(_keys(texts), self._keys)

    def _missing(self, texts: Iterable[Sequence[str]]) -> Iterator[list[str]]:
        """Parts of the texts that are not there yet, each text once."""
        waiting: dict[int, str] = {}
        passed = np.empty(0, np.uint64)  # of the parts that were yielded, ascending
        for some in texts:
            keys = _keys(some)
            new = (_find(keys, self._keys) < 0) & (_find(keys, passed) < 0)
            waiting |= {int(keys[place]): some[place] for place in np.flatnonzero(new).tolist()}
            while len(waiting) >= PART_TEXTS:
                part = {key: waiting.pop(key) for key in list(waiting)[:PART_TEXTS]}
                passed = np.union1d(passed, np.array(list(part), np.uint64))
                yield list(part.values())
        if waiting:
            yield list(waiting.values())

    def _write(self, texts: Sequence[str], on_done: Callable[[int], None]) -> None:
        vectors = np.empty((len(texts), self.encoder.width), np.float16)
        for start in range(0, len(texts), 1_000):
            vectors[start : start + 1_000] = self._encode(texts[start : start + 1_000])
            on_done(min(start + 1_000, len(texts)))
        keys = _keys(texts)
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                for kind, numbers in (("vectors", vectors), ("keys", keys)):
                    with whole(self.folder / f"{name}.{kind}.npy") as path, path.open("wb") as file:
                        np.save(file, numbers, allow_pickle=False)
        except OSError as error:
            raise EmbedError(
                f"the vectors of texts cannot be kept in {self.folder} ({error.strerror or error}): make it "
                "writable, or name another cache folder by XDG_CACHE_HOME"
            ) from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time: two trainings that began together write files of the same names."""
        with (self.folder / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self.folder.glob(".*.unfinished"):  # by a process that was killed
                left.unlink(missing_ok=True)
            yield

    @torch.no_grad()
    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        encoder = self.encoder
        was_training, device = encoder.training, encoder.device
        encoder.eval()
        ids, mask = encoder.tokenise(texts)
        vectors: np.ndarray = encoder(ids.to(device), mask.to(device)).cpu().numpy()
        encoder.train(was_training)
        return vectors

    def _read(self) -> None:
        """Opens all files that are there. A damaged one, or one of another type, counts as missing."""
        files: list[np.ndarray] = []
        keys, parts, rows = [np.empty(0, np.uint64)], [np.empty(0, int)], [np.empty(0, int)]
        for path in sorted(self.folder.glob("*.keys.npy")):
            try:
                # Not read at once: of a header that claims too much, mapping finds that the file is shorter.
                part_keys = np.load(path, mmap_mode="r", allow_pickle=False)
                vectors = np.load(
                    path.with_name(path.name.replace(".keys.", ".vectors.")),
                    mmap_mode="r",
                    allow_pickle=False,
                )
            except (OSError, ValueError, EOFError):
                continue
            if part_keys.ndim != 1 or part_keys.dtype != np.uint64:
                continue
            if vectors.shape != (len(part_keys), self.encoder.width) or vectors.dtype != np.float16:
                continue
            keys.append(np.array(part_keys))
            parts.append(np.full(len(part_keys), len(files)))
            rows.append(np.arange(len(part_keys)))
            files.append(vectors)
        # A text that several files have, because several processes added it at once, is read from the first.
        self._keys, first = np.unique(np.concatenate(keys), return_index=True)
        self._part, self._row = np.concatenate(parts)[first], np.concatenate(rows)[first]
        self._files = files


def user_cache() -> Path:
    """Where the vectors lie: ~/.cache/captioner/encoded-texts, or in XDG_CACHE_HOME if that is set."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "captioner" / "encoded-texts"


def _find(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The place of each key in `among`, which is ascending; -1 where it is not there."""
    places = np.searchsorted(among, keys)
    places[places == len(among)] = -1
    if len(among):
        places[among[places] != keys] = -1
    return places


def _keys(texts: Sequence[str]) -> np.ndarray:
    """The digests of texts, uint64 [texts]."""
    digests = (hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest() for text in texts)
    return np.frombuffer(b"".join(digests), np.uint64)
