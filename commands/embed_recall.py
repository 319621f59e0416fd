"""`captioner embed recall`: how well a model finds what people chose, beside BM25."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..common.terminal import say, steps
from .embed import embed
from .embed_tables import print_recall
from .verbs import verb

if TYPE_CHECKING:
    from ..embed.recall import RecallResult

SIDE, MAX_BYTES = 240, 20_000  # of a picture in the report: pixels of the longer side, bytes


@verb(embed, "recall")
@click.argument("model")
@click.argument("export")
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="The split whose pairs are ranked.",
)
@click.option(
    "--index",
    type=click.IntRange(1),
    metavar="N",
    help="Rank among N random items, and those of the pairs. [default: all]",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False),
    metavar="FILE.html",
    help="Also write one page with all of it, and with examples of what was gained and lost.",
)
@click.option(
    "--store",
    type=click.Path(),
    metavar="STORE",
    help="Show the pictures of this store in the report. It is only read.",
)
def recall_command(
    model: str,
    export: str,
    split: str,
    index: int | None,
    report: str | None,
    store: str | None,
    as_json: bool,
) -> RecallResult:
    """Measure how well a model finds what people chose.

    Recall@10 says how often the item that people chose is among the first ten; @1, @100, MRR and NDCG@10 are
    given as well (MRR and NDCG count a hit for more, the earlier it comes).

    Shows BM25 (search by words), and both fused, beside the model: BM25 of the kind that was best on held-out
    training queries (stems and trigrams if the model does not say), and BM25 of words alone. For each task,
    and within it by training pairs of the query and of the item, by words that were never seen, by action, by
    language, by whether the item has native text, and by whether the item was known to fit the query. A
    query's other known positives are left out of its ranking. Items with equal scores share their ranks.
    Intervals (95%) resample queries.

    \b
    captioner embed recall model/ out/
    captioner embed recall model/ out/ --report report.html --store my.db
    """
    if store and not report:
        raise click.UsageError("--store is for the pictures of a report: add --report FILE.html")
    from ..embed.model import EmbeddingModel
    from ..embed.reader import Export
    from ..embed.recall import recall
    from ..embed.recall_report import write_report
    from ..eval.report import check_report

    if report:
        check_report(Path(report))
    conn = None
    if store:
        from ..store import open_store

        conn = open_store(store, read_only=True)
    with steps({"encoding items": "items", "ranking": "tasks"}) as on_step:
        data = Export(export)  # read before the model, which takes longer
        loaded = EmbeddingModel.load(model)
        data.read_fields(loaded.fields)
        result = recall(loaded, data, split=split, index=index, on_step=on_step)
    if report:
        shown = {}
        if conn is not None:
            from ..images.thumbnails import pictures
            from ..store.pins import images_of

            pin_ids = list(dict.fromkeys(_pins_shown(result)))
            images = images_of(conn, pin_ids)
            wanted = [images.get(pin_id, (None, None)) for pin_id in pin_ids]
            made = pictures(wanted, SIDE, max_bytes=MAX_BYTES)
            shown = {
                pin_id: picture if isinstance(picture, str) else picture.uri
                for pin_id, picture in zip(pin_ids, made, strict=True)
            }
        write_report(result, Path(report), shown)
        say(f"report: {report}")
    if not as_json:
        print_recall(result)
    return result


def _pins_shown(result: RecallResult) -> list[str]:
    """The pins of all examples."""
    return [
        example["pin_id"]
        for name, task in result["tasks"].items()
        if name != "query-query"
        for examples in task["examples"].values()
        for example in examples
    ]
