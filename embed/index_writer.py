"""Makes the folder of an index (index.py), and measures how many of the right items it loses."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow.parquet as pq
import torch

from ..common.files import whole, write_whole
from ..common.terminal import OnStep, no_step
from .errors import EmbedError
from .index import FORMAT, MANIFEST, Index, Kind, faiss_search, load_faiss, read_manifest
from .item_vectors import ItemVectors
from .model import EmbeddingModel
from .pairs import Pairs
from .reader import Export

RECALL_AT = 10
GOAL = 0.99  # the recall at which the effort of a search is chosen
MEASURED_QUERIES = 1_000
EFFORTS = (16, 32, 64, 128, 256, 512, 1024)  # of HNSW: efSearch. Of IVF: nprobe, up to the number of lists
# Edges of a node of HNSW, and candidates while one is inserted: usual values of the literature (Malkov and
# Yashunin 2018).
HNSW_EDGES, HNSW_EFFORT = 32, 100
IVF_ITEMS_OF_A_LIST = 39  # faiss warns if its clustering gets fewer vectors for each list
IVF_TRAINED_ON = 256  # vectors for each list; faiss would not use more


class IndexResult(TypedDict):
    """What `build_index` made. `recall` is None for an exact index, which loses nothing."""

    items: int
    kind: Kind
    dim: int
    effort: int | None  # efSearch of HNSW, nprobe of IVF
    recall: float | None  # share of the ten nearest items that the index finds
    goal: float  # the recall at which the effort was to be chosen
    efforts: dict[str, float]  # {effort: recall} of all that were tried
    queries: int  # that it was measured with
    queries_from: str  # what these are
    ms_per_query: float  # of the index with this effort, one query at a time
    exact_ms_per_query: float
    bytes: int
    seconds: float
    model_digest: str
    out: str


def build_index(
    model: EmbeddingModel,
    items: str | Path,
    out: str | Path,
    *,
    kind: Kind = "exact",
    queries: str | Path | None = None,
    on_step: OnStep = no_step,
) -> IndexResult:
    """Makes an index of a file of item vectors in the folder `out`.

    `queries`: an export, whose test queries (or training queries) measure the recall, or a file with a query
    a line. Without them, random items take the place of queries. A running search keeps the files that it has
    open: an index that is made again gets files of new names, and its manifest is replaced last. Raises
    EmbedError.
    """
    began, out = time.perf_counter(), Path(out)
    opened = ItemVectors.open(items, model)
    if not len(opened):
        raise EmbedError(f"{items} has no items: an index needs at least one")
    if kind != "exact":
        load_faiss(kind)
    texts = None if queries is None else measuring_queries(Path(queries))
    number = _next_number(out)
    files = {"ids": f"ids-{number}.parquet", "vectors": f"vectors-{number}.npy"}
    about: dict[str, Any] = {"format": FORMAT, "model_digest": model.digest, "kind": kind}
    about |= {"dim": opened.dim, "fields": list(opened.fields), "items": len(opened), "files": files}
    out.mkdir(parents=True, exist_ok=True)
    columns = opened.columns("pin_id", "kind", "category").replace_schema_metadata(None)
    with whole(out / files["ids"]) as unfinished:
        pq.write_table(columns, unfinished, compression="zstd")
    with whole(out / files["vectors"]) as unfinished:
        _write_vectors(opened, unfinished, on_step)
    pin_ids, kinds, categories = (columns[name].combine_chunks() for name in columns.column_names)
    mapped = torch.from_numpy(np.load(out / files["vectors"], mmap_mode="c"))
    index = Index(pin_ids, kinds, categories, mapped, model.digest, opened.fields, kind, about)
    vectors, source = _query_vectors(model, index, texts)
    measured: dict[str, Any] = {"recall": None, "effort": None, "efforts": {}}
    if kind != "exact":
        index.approximate, efforts = _make_approximate(index, kind, on_step)
        measured = _measured(index, vectors, efforts, on_step)
        files["faiss"] = f"{kind}-{number}.faiss"
        with whole(out / files["faiss"]) as unfinished:
            load_faiss(kind).write_index(index.approximate, str(unfinished))
    about |= measured | {"queries": len(vectors), "queries_from": source}
    exact_time = _milliseconds(vectors, lambda query: index.exact(query, RECALL_AT))
    about["exact_ms_per_query"] = about["ms_per_query"] = exact_time
    if kind != "exact":
        about["ms_per_query"] = _milliseconds(vectors, lambda query: index.search(query, RECALL_AT))
    write_whole(out / MANIFEST, json.dumps(about, ensure_ascii=False, indent=1) + "\n")
    kept = {MANIFEST, *files.values()}
    for path in out.iterdir():
        if path.name not in kept and _is_ours(path.name):
            path.unlink()
    size = sum((out / name).stat().st_size for name in kept)
    return IndexResult(
        items=len(index),
        kind=kind,
        dim=index.dim,
        effort=about["effort"],
        recall=about["recall"],
        goal=GOAL,
        efforts=about["efforts"],
        queries=about["queries"],
        queries_from=source,
        ms_per_query=about["ms_per_query"],
        exact_ms_per_query=exact_time,
        bytes=size,
        seconds=time.perf_counter() - began,
        model_digest=model.digest,
        out=str(out),
    )


def measuring_queries(source: Path) -> tuple[list[str], str]:
    """(at most 1,000 queries, what they are) of an export or a file of lines. Raises EmbedError."""
    if source.is_dir():
        export = Export(source)
        splits = export.manifest.get("pairs", {}).get("pairs", {})
        split = "test" if splits.get("test") else "train"
        texts = Pairs.load(export, split).queries.to_pylist()
        name = f"{split} queries of {source}"
    else:
        try:
            lines = source.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise EmbedError(f"--queries {source}: {error.strerror}: name an export or a file") from None
        texts, name = (
            list(dict.fromkeys(line.strip() for line in lines if line.strip())),
            f"lines of {source}",
        )
    if not texts:
        raise EmbedError(f"--queries {source} has no queries: give it one a line")
    chosen = np.random.default_rng(0).permutation(len(texts))[:MEASURED_QUERIES]
    return [texts[i] for i in np.sort(chosen)], name


def _next_number(out: Path) -> int:
    """The number in the names of the files that are made next. Raises EmbedError for a folder of others."""
    about = read_manifest(out)
    if about is None:
        if out.exists() and not out.is_dir():
            raise EmbedError(f"{out} is a file: name a folder for the index")
        if out.exists() and (strange := [p.name for p in out.iterdir() if not _is_ours(p.name)]):
            raise EmbedError(
                f"{out} is no index and holds {sorted(strange)[0]}: name an empty folder, or a new one"
            )
        return 1
    return 1 + int(Path(about["files"]["vectors"]).stem.rpartition("-")[2])


def _is_ours(name: str) -> bool:
    """Whether a file in the folder of an index is part of one, or what a killed process left of one."""
    stem, _, rest = name.removeprefix(".").partition("-")
    return stem in ("ids", "vectors", "hnsw", "ivf") and rest.partition(".")[0].isdecimal()


def _write_vectors(items: ItemVectors, path: Path, on_step: OnStep) -> None:
    # np.save's format, with a name that does not end in .npy
    stored = np.lib.format.open_memmap(path, "w+", np.float16, (len(items), items.dim))
    done = 0
    for block in items.blocks():
        stored[done : done + len(block)] = block.numpy().astype(np.float16)
        done += len(block)
        on_step("writing vectors", done, len(items))
    stored.flush()


def _query_vectors(
    model: EmbeddingModel, index: Index, texts: tuple[list[str], str] | None
) -> tuple[torch.Tensor, str]:
    """(vectors of the queries that measure, what these are)."""
    if texts is not None:
        return model.embed_queries(texts[0], dim=index.dim).cpu(), texts[1]
    chosen = np.sort(np.random.default_rng(0).permutation(len(index))[:MEASURED_QUERIES])
    return index.vectors[torch.from_numpy(chosen)].float(), "random items"


def _make_approximate(index: Index, kind: Kind, on_step: OnStep) -> tuple[Any, Sequence[int]]:
    """(faiss's index of all vectors, the efforts to try)."""
    faiss, n = load_faiss(kind), len(index)
    metric, numbers = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_fp16
    if kind == "hnsw":
        made = faiss.IndexHNSWSQ(index.dim, numbers, HNSW_EDGES, metric)
        made.hnsw.efConstruction = HNSW_EFFORT
        made.train(index.vectors[:1].float().numpy())  # halves of 16 bits need no training
        efforts: Sequence[int] = EFFORTS
    else:
        lists = max(1, min(round(4 * math.sqrt(n)), n // IVF_ITEMS_OF_A_LIST))
        made = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(index.dim), index.dim, lists, numbers, metric, False
        )
        chosen = np.random.default_rng(0).permutation(n)[: lists * IVF_TRAINED_ON]
        on_step("clustering", 0, None)
        made.train(index.vectors[torch.from_numpy(np.sort(chosen))].float().numpy())
        efforts = [*(effort for effort in (1, 2, 4, 8, *EFFORTS) if effort < lists), lists]
    block = 10_000
    for start in range(0, n, block):
        made.add(np.ascontiguousarray(index.vectors[start : start + block].float().numpy()))
        on_step("adding vectors", min(start + block, n), n)
    return made, efforts


def _measured(index: Index, queries: torch.Tensor, efforts: Sequence[int], on_step: OnStep) -> dict[str, Any]:
    """The recall of the smallest effort that reaches GOAL, or else of the largest, and of those before it."""
    k = min(RECALL_AT, len(index))
    on_step("exact search", 0, len(queries))
    scores, _ = index.exact(queries, k)
    tried: dict[str, float] = {}
    for number, effort in enumerate(efforts):
        on_step("measuring recall", number, len(efforts))
        rows = faiss_search(index.approximate, queries.numpy(), k, effort)
        found = torch.einsum(
            "qkd,qd->qk", index.vectors[torch.from_numpy(rows).clamp(min=0)].float(), queries
        ).numpy()
        # Of items with equal vectors any is right.
        right = (found >= scores[:, -1:] - 1e-5) & (rows >= 0)
        tried[str(effort)] = float(right.mean())
        if tried[str(effort)] >= GOAL:
            break
    return {"effort": effort, "recall": tried[str(effort)], "efforts": tried}


def _milliseconds(queries: torch.Tensor, search: Callable[[torch.Tensor], object]) -> float:
    """The median time of one query."""
    times = []
    for query in queries[:50]:
        began = time.perf_counter()
        search(query[None])
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))
