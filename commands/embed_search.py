"""`captioner embed items|index|search|related`: item vectors, an index, and what a search finds and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..common.terminal import no_step, plural, say, steps, wrapped
from .embed import embed
from .search_tables import print_answer, print_related
from .verbs import verb

if TYPE_CHECKING:
    from ..embed.index_writer import IndexResult
    from ..embed.item_writer import ItemsResult
    from ..embed.search import Search


def _names(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise click.UsageError("--fields takes the names of text fields, for instance title,description")
    return names


_FIELDS = click.option(
    "--fields",
    callback=_names,
    metavar="NAME,...",
    help="Only these text fields are read, for instance title,description. [default: all of the model]",
)
_DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu"]),
    default="auto",
    show_default=True,
    help="Where the model computes: on a GPU if there is one, or on the CPU.",
)


@verb(embed, "items")
@click.argument("model")
@click.argument("export")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option(
    "--dim",
    type=click.IntRange(1),
    metavar="N",
    help="Only the first N numbers; N is one of the lengths that the model was trained for.",
)
@click.option("--int8", is_flag=True, help="Write int8 numbers, those of the vector times 127.")
@_FIELDS
@_DEVICE
def items_command(
    model: str,
    export: str,
    out: str,
    dim: int | None,
    int8: bool,
    fields: tuple[str, ...] | None,
    device: str,
    as_json: bool,
) -> ItemsResult:
    """Embed the items of an export into a Parquet file.

    The columns are pin_id, kind, category, vector (float16), and text_digest. If OUT exists, only items whose
    texts or dense vectors changed are embedded again, and items that are gone are dropped. After another
    training all are embedded again. A call that was stopped loses at most the last 10,000 items. For several
    processes or GPUs: accelerate launch --num_processes 2 -m pincaption.cli embed items ...

    \b
    captioner embed items model/ out/ items.parquet
    captioner embed items model/ out/ small.parquet --dim 64 --int8
    """
    from ..embed.distributed import join_processes, process_rank
    from ..embed.item_vectors import export_for
    from ..embed.item_writer import write_item_vectors
    from ..embed.model import EmbeddingModel

    place = join_processes(None if device == "auto" else device)
    is_first = process_rank() == 0  # of several processes only the first one prints anything
    loaded = EmbeddingModel.load(model).to(place)
    with steps({"encoding items": "items"}) as on_step:
        result = write_item_vectors(
            loaded,
            export_for(loaded, export, fields),
            out,
            dim=dim,
            int8=int8,
            on_step=on_step if is_first else no_step,
        )
    if not is_first:
        raise click.exceptions.Exit(0)
    if not as_json:
        _print_items(result)
    return result


def _print_items(result: ItemsResult) -> None:
    again = result["all_again"]
    click.echo(
        wrapped(
            f"{result['out']}: {plural(result['items'], 'item')}, {result['dim']} {result['numbers']} "
            f"numbers each; {result['embedded']:,} embedded, {result['copied']:,} copied, "
            f"{result['dropped']:,} dropped"
        )
    )
    if again and again != "no file before":
        click.echo(f"the file of before had vectors of {again}: all items were embedded again")
    if result["resumed"]:
        click.echo(f"copied from a call that was stopped: {plural(result['resumed'], 'item')}")


@verb(embed, "index")
@click.argument("model")
@click.argument("items")
@click.argument("out", metavar="INDEX")
@click.option(
    "--kind",
    type=click.Choice(["exact", "hnsw", "ivf"]),
    default="exact",
    show_default=True,
    help="Exact search, or faiss's graph (hnsw) or clusters (ivf), which lose a few items.",
)
@click.option(
    "--queries",
    metavar="EXPORT|FILE",
    help="What the recall is measured with: the test queries of an export, or a file with a query a line. "
    "[default: random items]",
)
def index_command(
    model: str, items: str, out: str, kind: Any, queries: str | None, as_json: bool
) -> IndexResult:
    """Make an index of item vectors, and measure what it loses.

    INDEX is a folder whose vectors are memory-mapped. Of hnsw and ivf the search effort is the smallest that
    finds 99% of the ten nearest items; the recall is printed. They need pip install 'pincaption[search]'.

    \b
    captioner embed index model/ items.parquet index/
    captioner embed index model/ items.parquet index/ --kind hnsw --queries out/
    """
    from ..embed.index_writer import build_index
    from ..embed.model import EmbeddingModel

    units = {"writing vectors": "vectors", "adding vectors": "vectors", "measuring recall": "efforts"}
    with steps(units) as on_step:
        result = build_index(
            EmbeddingModel.load(model), items, out, kind=kind, queries=queries, on_step=on_step
        )
    if not as_json:
        _print_index(result)
    return result


def _print_index(result: IndexResult) -> None:
    click.echo(
        wrapped(
            f"{result['out']}: {plural(result['items'], 'item')}, {result['kind']}, "
            f"{result['bytes'] / 1e6:,.1f} MB"
        )
    )
    click.echo(f"{result['ms_per_query']:.2f} ms for a query")
    if result["recall"] is None:
        return
    click.echo(f"exact search takes {result['exact_ms_per_query']:.2f} ms")
    measured = f"measured with {result['queries']:,} {result['queries_from']}"
    click.echo(
        wrapped(
            f"recall@10 {result['recall']:.4f} of exact search, with effort {result['effort']}: {measured}"
        )
    )
    if result["recall"] < result["goal"]:
        click.echo(wrapped(f"no effort that was tried finds {result['goal']:.0%}: compare another --kind"))
    if result["queries_from"] == "random items":
        click.echo(wrapped("items are easier to find than queries: give real ones with --queries EXPORT"))


_K = click.option(
    "--k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many of each are shown."
)
_ITEMS = click.option(
    "--items", metavar="FILE", help="Vectors of captioner embed items. [default: items are embedded now]"
)
_INDEX = click.option("--index", metavar="DIR", help="An index to use in place of --items.")


@verb(embed, "search")
@click.argument("model")
@click.argument("export")
@click.argument("query")
@click.option("--kind", type=click.Choice(["pin", "product"]), help="Only items of this kind.")
@click.option("--category", metavar="C", help="Only items of this category.")
@_K
@click.option(
    "--by",
    type=click.Choice(["both", "meaning", "words"]),
    default="both",
    show_default=True,
    help="What counts: the model's embeddings, BM25, or both fused.",
)
@_ITEMS
@_INDEX
@_FIELDS
@click.option(
    "--related",
    type=click.IntRange(0, 1_000),
    default=5,
    show_default=True,
    help="How many related queries are shown; 0 leaves out their embedding, which takes seconds.",
)
def search_command(
    model: str,
    export: str,
    query: str,
    kind: Any,
    category: str | None,
    k: int,
    by: Any,
    items: str | None,
    index: str | None,
    fields: tuple[str, ...] | None,
    related: int,
    as_json: bool,
) -> dict[str, Any]:
    """Search pins, products and queries, and see why.

    Under each hit stand the shares of words and of meaning in its score, and the words of the query with the
    fields that have them. A hit that only its caption made findable is marked.

    \b
    captioner embed search model/ out/ "red mug"
    captioner embed search model/ out/ "red mug" --index index/ --kind product
    captioner embed search model/ out/ "red mug" --fields title,description
    """
    search = _open(model, export, items, index, fields, related > 0)
    answer = search.find(query, kind=kind, category=category, k=k, by=by, related=related)
    if not as_json:
        print_answer(answer)
        for note in answer.notes:
            say(wrapped(note))
    return asdict(answer) | {"seconds_embedding": search.seconds_embedding}


@verb(embed, "related")
@click.argument("model")
@click.argument("export")
@click.option("--query", metavar="TEXT", help="What is near to this query.")
@click.option("--item", metavar="ID", help="What is near to the item with this pin_id.")
@click.option(
    "--to",
    type=click.Choice(["queries", "items"]),
    help="What is shown. [default: queries for a query, items for an item]",
)
@_K
@_ITEMS
@_INDEX
def related_command(
    model: str,
    export: str,
    query: str | None,
    item: str | None,
    to: str | None,
    k: int,
    items: str | None,
    index: str | None,
    as_json: bool,
) -> dict[str, Any]:
    """Show what is near to a query or to an item.

    Compares embeddings: queries for a query, items for an item, queries for an item, items for a query. The
    queries are the 20,000 most frequent ones of the export.

    \b
    captioner embed related model/ out/ --query "red mug"
    captioner embed related model/ out/ --item p17 --to queries
    """
    from ..embed.related import related_items, related_queries

    if (query is None) == (item is None):
        raise click.UsageError("give one of --query and --item")
    to = to or ("items" if item else "queries")
    search = _open(model, export, items, index, None, to == "queries")
    found: list[Any] = list(
        related_queries(search, query=query, item=item, k=k)
        if to == "queries"
        else related_items(search, query=query, item=item, k=k)
    )
    if not as_json:
        print_related(found)
    return {"query": query, "item": item, "to": to, to: [asdict(one) for one in found]}


def _open(
    model: str,
    export: str,
    items: str | None,
    index: str | None,
    fields: tuple[str, ...] | None,
    with_queries: bool,
) -> Search:
    """Loads a search, and says how long its items took if their vectors are not in a file."""
    from ..embed.search import Search

    with steps({"encoding items": "items", "encoding queries": "queries"}) as on_step:
        search = Search.open(model, export, items, index, fields=fields, on_step=on_step)
        if with_queries:
            search.embed_queries(on_step)
    if search.seconds_embedding is not None:
        took = f"embedding {plural(len(search.index), 'item')} took {search.seconds_embedding:.1f} s"
        keep = f"captioner embed items {model} {export} items.parquet keeps the vectors for --items"
        say(wrapped(f"{took}: {keep}"))
    return search
