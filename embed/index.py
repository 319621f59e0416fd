"""Nearest neighbours: a folder with the vectors of items, memory-mapped, and with faiss's index if asked for.

An exact index computes every score, in blocks. The approximate kinds, "hnsw" and "ivf", are those of faiss
(`pip install 'pincaption[search]'`); how many of the right items they lose is measured when they are made.
index_writer.py makes such a folder.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .errors import EmbedError
from .item_vectors import ItemVectors, expect_digest
from .model import EmbeddingModel

FORMAT = "pincaption index 1"
MANIFEST = "manifest.json"
BLOCK = 65_536  # vectors whose scores are computed at a time
# With so few allowed items, or so small a share of all, the approximate kinds compute the scores of these
# alone: a graph that is searched with a narrow filter finds few of the items that it may return.
EXACT_ITEMS, EXACT_SHARE = 20_000, 0.1

Kind = Literal["exact", "hnsw", "ivf"]


@dataclass
class Index:
    """The vectors of items, and what finds the nearest of them.

    ```
    index = Index.open("index/")
    scores, rows = index.search(model.embed_queries(["red mug"]), k=10)
    index.pin_ids.take(pa.array(rows[0]))
    ```
    """

    pin_ids: pa.Array
    kinds: pa.Array
    categories: pa.Array
    vectors: torch.Tensor  # [items, dim], of length 1: float16 on disk, or float32 in memory
    model_digest: str
    fields: tuple[str, ...]  # the text fields that the model got to see
    kind: Kind = "exact"
    about: dict[str, Any] | None = None  # the content of manifest.json
    approximate: Any = None  # the index of faiss

    @classmethod
    def open(cls, folder: str | Path, model: EmbeddingModel | None = None) -> Index:
        """Opens a folder. The vectors stay on disk, memory-mapped; the ids are read.

        Raises EmbedError if it is not an index, if another model than `model` made its vectors, or if faiss
        is needed and missing.
        """
        folder = Path(folder)
        about = read_manifest(folder)
        if about is None:
            raise EmbedError(
                f"{folder} is not an index: make one with captioner embed index MODEL ITEMS.parquet {folder}"
            )
        if model is not None:
            expect_digest(
                folder, about["model_digest"], model, "captioner embed items, then captioner embed index"
            )
        files = about["files"]
        if missing := [name for name in files.values() if not (folder / name).is_file()]:
            raise EmbedError(
                f"{folder} lacks its {', '.join(missing)}: make it again with captioner embed index"
            )
        ids = pq.read_table(folder / files["ids"])
        # torch warns of arrays that cannot be written to, but nobody writes to these.
        vectors = torch.from_numpy(np.load(folder / files["vectors"], mmap_mode="c"))
        approximate = None
        if about["kind"] != "exact":
            faiss = load_faiss(about["kind"])
            approximate = faiss.read_index(str(folder / files["faiss"]), faiss.IO_FLAG_MMAP_IFC)
        pin_ids, kinds, categories = (ids[name].combine_chunks() for name in ("pin_id", "kind", "category"))
        return cls(
            pin_ids,
            kinds,
            categories,
            vectors,
            about["model_digest"],
            tuple(about["fields"]),
            about["kind"],
            about,
            approximate,
        )

    @classmethod
    def in_memory(cls, items: ItemVectors) -> Index:
        """An exact index of a file of item vectors, float32: 4 bytes a number."""
        columns = items.columns("pin_id", "kind", "category")
        pin_ids, kinds, categories = (columns[name].combine_chunks() for name in columns.column_names)
        vectors = torch.empty(len(items), items.dim)
        done = 0
        for block in items.blocks():
            vectors[done : done + len(block)] = block
            done += len(block)
        return cls(pin_ids, kinds, categories, vectors, items.model_digest, items.fields)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self.vectors.shape[1]

    def search(
        self, queries: torch.Tensor, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(scores, rows), both [queries, k], best first: the items nearest to queries [queries, dim].

        `allowed` [items], bool: only these items are returned. There are fewer than `k` columns only if fewer
        items are allowed. The scores are dot products, float32; items with equal scores come in the order of
        their rows. The approximate kinds may lose items, but never return one that is not allowed.
        """
        queries = queries.detach().cpu().float()
        if allowed is not None and allowed.all():
            allowed = None
        rows = None if allowed is None else np.flatnonzero(allowed)
        k = min(k, len(self) if rows is None else len(rows))
        if not k or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        few = rows is not None and len(rows) <= max(EXACT_ITEMS, EXACT_SHARE * len(self))
        if self.approximate is None or few:
            return self.exact(queries, k, rows)
        assert self.about is not None
        effort = self.about["effort"]
        if rows is not None:  # to meet as many allowed items as without a filter
            effort = math.ceil(effort * len(self) / len(rows))
        found = faiss_search(self.approximate, queries.numpy(), k, effort, allowed)
        incomplete = (found < 0).any(1)
        scores, ordered = self._ordered(queries, found)
        if incomplete.any():
            places = np.flatnonzero(incomplete)
            scores[places], ordered[places] = self.exact(queries[torch.from_numpy(places)], k, rows)
        return scores, ordered

    def exact(
        self, queries: torch.Tensor, k: int, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `search` returns, computed from every score; `rows`, ascending: of these items alone."""
        best = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
        total = len(self) if rows is None else len(rows)
        for start in range(0, total, BLOCK):
            end = min(start + BLOCK, total)
            numbers = torch.arange(start, end) if rows is None else torch.from_numpy(rows[start:end])
            block = self.vectors[start:end] if rows is None else self.vectors[numbers]
            scores = torch.cat([best[0], queries @ block.float().T], 1)
            found = torch.cat([best[1], numbers.expand(len(queries), -1)], 1)
            best = _top(scores, found, k)
        return best[0].numpy(), best[1].numpy()

    def scores(self, query: torch.Tensor, rows: np.ndarray | None = None) -> np.ndarray:
        """The dot products [items] of one query [dim] with all items, or with those of `rows`, float32."""
        query = query.detach().cpu().float()
        if rows is not None:
            return np.asarray((self.vectors[torch.from_numpy(rows)].float() @ query).numpy())
        if self.vectors.dtype == torch.float32:
            return np.asarray((self.vectors @ query).numpy())
        parts = [self.vectors[start : start + BLOCK].float() @ query for start in range(0, len(self), BLOCK)]
        return np.asarray(torch.cat(parts).numpy() if parts else np.empty(0, np.float32))

    def moments(self, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean [dim], mean of the products of two numbers [dim, dim]) of chosen vectors, bool [items]."""
        total, products = torch.zeros(self.dim), torch.zeros(self.dim, self.dim)
        for start in range(0, len(self), BLOCK):
            block = self.vectors[start : start + BLOCK].float()[
                torch.from_numpy(chosen[start : start + BLOCK])
            ]
            total, products = total + block.sum(0), products + block.T @ block
        n = max(1, int(chosen.sum()))
        return total / n, products / n

    def _ordered(self, queries: torch.Tensor, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows that faiss found [queries, k], with exact scores, in their order. A -1 gets the score -inf."""
        rows = torch.from_numpy(found)
        vectors = self.vectors[rows.clamp(min=0).reshape(-1)].float().view(*found.shape, self.dim)
        scores = torch.einsum("qkd,qd->qk", vectors, queries)
        scores = torch.where(rows < 0, -torch.inf, scores)
        best = _top(scores, rows, found.shape[1])
        return best[0].numpy(), best[1].numpy()


def _top(scores: torch.Tensor, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` best of scores [queries, n], and their rows; of equal scores the lower row comes first."""
    k = min(k, scores.shape[1])
    # The lowest score that is kept may occur outside of topk, too, with a lower row.
    least = scores.topk(k).values[:, -1:]
    wide = min(scores.shape[1], int((scores >= least).sum(1).max()))
    scores, places = scores.topk(wide)
    rows = rows.gather(1, places)
    order = rows.argsort(dim=1, stable=True)
    scores, rows = scores.gather(1, order), rows.gather(1, order)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return scores.gather(1, order), rows.gather(1, order)


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The numbers of the `k` best of scores [n], best first; of equal scores the first one comes first.

    A score that is not a number, or minus infinity, is not returned.
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)
    k = min(k, int(np.isfinite(scores).sum()))
    if not k:
        return np.empty(0, np.int64)
    places = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
    return places[np.argsort(-scores[places], kind="stable")[:k]]


def faiss_search(
    approximate: Any, queries: np.ndarray, k: int, effort: int, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Rows [queries, k] that an index of faiss finds; -1 where it finds nothing more.

    `effort`: efSearch of HNSW, nprobe of IVF.
    """
    faiss = load_faiss("hnsw")
    selector = None
    if allowed is not None:
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if isinstance(approximate, faiss.IndexHNSW):
        parameters = faiss.SearchParametersHNSW(efSearch=max(effort, k), sel=selector)
    else:
        parameters = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
    return np.asarray(approximate.search(np.ascontiguousarray(queries, np.float32), k, params=parameters)[1])


def load_faiss(kind: str) -> Any:
    """The library. Raises EmbedError if it is not installed."""
    try:
        import faiss
    except ImportError:
        raise EmbedError(
            f"an index of the kind {kind} needs faiss: pip install 'pincaption[search]', or use --kind exact"
        ) from None
    return faiss


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The content of an index's manifest.json; None if the folder holds none, or another format."""
    try:
        about: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return about if about["format"] == FORMAT else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
