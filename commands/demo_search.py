"""`captioner demo --search`: trains a search embedding on the drawn world, and measures what captions add."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from ..common.files import write_whole
from ..common.terminal import OnStep, no_step, wrapped

if TYPE_CHECKING:
    from ..embed.recall import RecallResult

# The drawn query log ends on 30 June 2026: half of it is learned from or tested with.
AS_OF, TEST_FROM = date(2026, 6, 15), date(2026, 6, 24)
DAY = timedelta(days=1)
# Board titles and queries are left out: nearly every drawn pin has some, so that nobody would see what the
# captions do.
FIELDS = ("title", "description", "caption")


class Measured(TypedDict):
    """What the search of the demo finds."""

    test_pairs: int  # of queries and pins, from later days
    recall: dict[str, float]  # Recall@10 of all test pairs: "search" (fused), "model", "BM25"
    # Recall@10 of the search for pins that have no text of their own
    silent: dict[str, float]  # "with captions", "without captions"


class DemoSearch(Measured):
    """What `make_demo_search` did; `captioner demo --search --json` has it under "search"."""

    export: str
    model: str
    pairs: int  # of drawn queries with pins and with one another, learned from
    trained: bool  # False: an earlier call had trained the model
    seconds: float  # of this call


def make_demo_search(
    store: Path, folder: Path, say: Callable[[str], None], on_step: OnStep = no_step, *, epochs: float = 10.0
) -> DemoSearch:
    """Exports a demo's store, trains a model on it, and measures it; all in `folder`.

    A model that was trained on the same export is used again; one of another export is replaced. Ten epochs
    of 300 pins take about 20 seconds of two cores. Raises EmbedError, for instance for a `folder` that holds
    something else.
    """
    from ..embed.checkpoint import CHECKPOINT, finished_result, training_digest
    from ..embed.errors import EmbedError
    from ..embed.options import TrainOptions
    from ..embed.sizes import Sizes
    from ..embed.training import train
    from ..export.write import ExportOptions, export
    from ..store import open_store

    began = time.perf_counter()
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise EmbedError(f"{folder} is a file, where the search is to be made: move it away") from None
    features, model = folder / "export", folder / "model"
    exported = ExportOptions(as_of=AS_OF, pairs=True, test_from=TEST_FROM)
    with closing(open_store(store)) as conn:
        counts = export(conn, features, exported, record=False)["pairs"]
    pairs = sum(splits.get("train", 0) for splits in counts.values())
    # Half of the usual sizes: enough for a few hundred pins, and four times as fast.
    sizes = Sizes(width=256, hidden=128, prefixes=(64, 128))
    options = TrainOptions(fields=FIELDS, sizes=sizes, epochs=epochs, batch=128, random_negatives=0, every=10)
    try:
        known = finished_result(model, training_digest(features, options)) is not None
    except EmbedError:
        if not any((model / name).exists() for name in ("config.json", CHECKPOINT)):
            raise
        shutil.rmtree(model)  # of another export
        known = False
    if not known:
        say(f"learning from {pairs:,} pairs of drawn queries and pins; this takes up to a minute")
    train(features, model, options, workers=0, device="cpu", on_step=on_step)
    measured = _measured(model, features, folder / "measured.json")
    return DemoSearch(
        export=str(features),
        model=str(model),
        pairs=pairs,
        trained=not known,
        seconds=round(time.perf_counter() - began, 1),
        **measured,
    )


def _measured(model: Path, features: Path, kept: Path) -> Measured:
    """Recall@10 on the test pairs, with and without captions; kept in a file for the next call."""
    from ..embed.item_vectors import export_for
    from ..embed.model import EmbeddingModel
    from ..embed.recall import recall

    loaded = EmbeddingModel.load(model)
    try:
        known = json.loads(kept.read_text())
        if known["model"] == loaded.digest:
            return Measured(test_pairs=known["test_pairs"], recall=known["recall"], silent=known["silent"])
    except (OSError, ValueError, LookupError, TypeError):
        pass  # it is measured now
    found = recall(loaded, features)
    without = recall(loaded, export_for(loaded, features, FIELDS[:2]))
    measured = Measured(
        test_pairs=sum(task["pairs"] for task in found["tasks"].values() if "item" in task["groups"]),
        recall={
            "search": _mean(found, "fused"),
            "model": _mean(found, "model"),
            "BM25": _mean(found, "bm25"),
        },
        silent={
            "with captions": _mean(found, "fused", "without native text"),
            "without captions": _mean(without, "fused", "without native text"),
        },
    )
    write_whole(kept, json.dumps({"model": loaded.digest, **measured}) + "\n")
    return measured


def _mean(result: RecallResult, who: str, only: str | None = None) -> float:
    """Recall@10 of all pairs of queries and items, or only of items "with" or "without native text"."""
    parts = [
        (part["pairs"], part[who]["recall@10"][0])  # type: ignore[literal-required]
        for task in result["tasks"].values()
        for name, part in task["groups"].get("item", {}).items()
        if only in (None, name)
    ]
    pairs = sum(n for n, _ in parts)
    return round(float(sum(n * mean for n, mean in parts)) / max(1, pairs), 3)


def print_search(made: DemoSearch) -> None:
    """What was learned from, and what the search finds."""
    from_pairs = f"{made['pairs']:,} pairs of drawn queries and pins, {AS_OF + DAY} to {TEST_FROM - DAY}"
    how = f"{'trained' if made['trained'] else 'had trained before'} on {from_pairs}"
    click.echo(wrapped(f"{how} ({made['seconds']:.0f} s): {made['model']}"))
    recall, silent = made["recall"], made["silent"]
    click.echo(
        wrapped(
            f"Of {made['test_pairs']:,} query-pin pairs of the days after that, the search has the pin among "
            f"its first ten for {recall['search']:.0%}; words alone (BM25) for {recall['BM25']:.0%}. If the "
            f"pin has no text of its own: {silent['with captions']:.0%} with captions, "
            f"{silent['without captions']:.0%} without."
        )
    )
    click.echo("All of this was drawn: it says nothing about another catalogue.")
