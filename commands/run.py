"""`captioner run`: a caption for every pin that needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .options import DTYPE, BatchSizeType, DeviceType, download_progress
from .verbs import STORE, command, finish

if TYPE_CHECKING:
    from ..captioner.run import Result
    from ..store import Connection


@command("run")
@STORE
@click.option(
    "--model",
    metavar="builtin|NAME|PATH",
    help="BLIP-2 checkpoint: a name on the Hugging Face hub, a folder, or builtin (which knows drawn "
    "pictures only). [default: the model that this store used last]",
)
@click.option("--revision", help="Commit, tag or branch of the model on the hub.")
@click.option(
    "--select",
    type=click.Choice(["missing-description", "missing-text", "all"]),
    default="missing-description",
    show_default=True,
    help="Which pins get a caption.",
)
@click.option(
    "--prompt", default="", help="Text that the caption continues. A pin's own prompt takes precedence."
)
@click.option(
    "--batch-size",
    type=BatchSizeType(),
    metavar="auto|N",
    default="auto",
    show_default=True,
    help="Pictures per batch.",
)
@click.option(
    "--min-new-tokens",
    type=click.IntRange(0, 512),
    metavar="N",
    default=5,
    show_default=True,
    help="Shortest caption in tokens.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1, 512),
    metavar="N",
    default=30,
    show_default=True,
    help="Longest caption in tokens.",
)
@click.option(
    "--num-beams",
    type=click.IntRange(1, 32),
    metavar="N",
    default=1,
    show_default=True,
    help="Width of the beam search; 1 is greedy.",
)
@click.option(
    "--no-repeat-ngram",
    type=click.IntRange(0, 32),
    metavar="N",
    default=0,
    show_default=True,
    help="Do not repeat any sequence of N tokens; 0 allows it.",
)
@click.option(
    "--device",
    type=DeviceType(),
    metavar="auto|all|cpu|cuda:N",
    default="auto",
    show_default=True,
    help="Where the model runs. auto: a GPU if there is one; all: one process per GPU.",
)
@DTYPE
@click.option(
    "--workers", type=click.IntRange(1, 256), metavar="N", help="Threads that fetch and decode pictures."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after N pins.")
@click.option("--retry-failed", is_flag=True, help="Try pins that failed before once more.")
@click.option(
    "--truncated",
    type=click.Choice(["refuse", "accept"]),
    default="refuse",
    show_default=True,
    help="JPEG and PNG files that end early: let the pin fail, or caption what is there and mark it.",
)
def run(store: str, as_json: bool, **choices: Any) -> dict[str, Any]:
    """Write a caption for every pin that needs one.

    A run continues where an earlier one stopped. Several runs on one store share the work. Ctrl-C finishes
    the current batch and then stops. A model of the hub is downloaded if it is not on this disk: first its
    small files, which are checked, then its weights. Before that, the command says how many GB they have.

    \b
    captioner run my.db --model Salesforce/blip2-flan-t5-xl
    captioner run my.db --model builtin --limit 100
    captioner run my.db --select all --prompt "a photo of"
    """
    from ..captioner.plan import make_plan, with_last_model
    from ..captioner.run import Options, Result, warnings
    from ..captioner.run import run as run_store
    from ..common.terminal import plural, progress, say
    from ..store import open_store
    from .devices import all_devices, shared_limit

    conn = open_store(store)
    if no_pins := why_no_pins(conn, store):
        (say if as_json else click.echo)(no_pins)
        return {**Result("").counts()}
    devices = all_devices() if choices["device"] == "all" else choices["device"].split(",")
    options = Options(**choices)
    if len(devices) > 1:
        with download_progress(as_json) as on_bytes:  # else each process would download the model
            make_plan(conn, with_last_model(conn, options), say=say, on_bytes=on_bytes)
        return _run_on_each(store, devices, choices, as_json)
    with download_progress(as_json) as on_bytes, progress("captioning", "pins") as shown:
        result = run_store(
            conn,
            options,
            say=say,
            on_bytes=on_bytes,
            on_batch=lambda done, total, batch: shown.update(done, total, f"batch {batch}"),
            shared_limit=shared_limit(),
        )
    counts: dict[str, Any] = {**result.counts()}
    if not as_json:
        _print_result(result)
    for warning in warnings(result):
        say(f"warning: {warning}")
    if result.stopped:
        say(
            f"stopped with {plural(result.remaining, 'pin')} left; the same command continues from here: "
            f"captioner run {store}"
        )
        finish(counts, as_json, 130)
    if result.attempted and result.failed == result.attempted:
        say(
            "every pin failed; the reasons are above and in the table captions; "
            "`captioner run --retry-failed` tries again"
        )
        finish(counts, as_json, 1)
    return counts


def why_no_pins(conn: Connection, store: str) -> str | None:
    """Says that a store has no pins and how to bring some in; None if it has pins."""
    from ..store.pins import count_pins, has_pins

    if has_pins(conn):
        return None
    deleted = count_pins(conn)
    but = f" ({deleted:,} are marked as deleted)" if deleted else ""
    return (
        f"the store has no pins{but}: bring some in with `captioner ingest images {store} DIR` "
        f"or `captioner ingest pins {store} SOURCE`"
    )


def _print_result(result: Result) -> None:
    from ..common.terminal import duration, plural

    if not result.selected:
        click.echo(
            "nothing to do: every selected pin has its caption, or failed before and waits for --retry-failed"
        )
        return
    click.echo(
        f"{result.captioned:,} captioned, {result.shared:,} shared, {result.rejected:,} rejected, "
        f"{result.failed:,} failed; {result.remaining:,} left"
    )
    click.echo(f"{duration(result.seconds)}, {result.images_per_second:,.1f} pins/s")
    if result.truncated:
        click.echo(
            f"{result.truncated:,} captioned from what is there of an image that ends early "
            "(see the table truncated_images)"
        )
    for reason, n in sorted(result.reasons.items(), key=lambda item: -item[1]):
        click.echo(f"  {n:>8,}  {reason}")
    if result.most_common:
        share = result.most_common[1]
        different = plural(result.distinct, "distinct caption")
        click.echo(f"{different}; the most common is on {share:.1%} of the pins")
    for pin_id, caption in result.examples:
        click.echo(f"  {pin_id}: {caption}")


def _run_on_each(store: str, devices: list[str], choices: dict[str, Any], as_json: bool) -> dict[str, Any]:
    """One process per device on the same store: the claims share the work."""
    from .devices import run_processes

    counts, code = run_processes(store, devices, choices)
    if not as_json:
        click.echo(
            f"{counts['captioned']:,} captioned, {counts['shared']:,} shared, {counts['rejected']:,} "
            f"rejected, {counts['failed']:,} failed; {counts['remaining']:,} left"
        )
        click.echo(f"{len(devices)} devices, {counts['images_per_second']:,.1f} pins/s")
    if code:
        finish(counts, as_json, code)
    return counts
