"""`captioner export`: the store as files for a trainer."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from ..common.terminal import plural, say, steps
from .verbs import verb

DAY = click.DateTime(["%Y-%m-%d"])


def add_export(cli: click.Group) -> None:
    """Adds the command to the others."""

    @verb(cli, "export")
    @click.argument("arguments", nargs=-1, metavar="STORE OUT_DIR")
    @click.option(
        "--format",
        "format_",
        type=click.Choice(["parquet", "jsonl"]),
        default="parquet",
        show_default=True,
        help="jsonl is for people who want to read it.",
    )
    @click.option(
        "--shards",
        type=click.IntRange(1, 100_000),
        metavar="N",
        help="Files to write. [default: one for 250,000 pins]",
    )
    @click.option(
        "--seed", type=int, metavar="N", default=0, show_default=True, help="Of the order of the rows."
    )
    @click.option(
        "--recipe", metavar="ID", help="Take the captions of this recipe in place of the current ones."
    )
    @click.option(
        "--schema",
        type=click.Choice(["store", "omnisearchsage"]),
        default="store",
        show_default=True,
        help="Names of the text columns.",
    )
    @click.option(
        "--as-of", type=DAY, metavar="DATE", help="Titles and queries as they were known on this day."
    )
    @click.option(
        "--pairs", is_flag=True, help="Also what people did after --as-of: query-pin and query-query pairs."
    )
    @click.option(
        "--test-from", type=DAY, metavar="DATE", help="Pairs of this day and later are the split test."
    )
    @click.option(
        "--undated",
        type=click.Choice(["refuse", "include", "drop"]),
        default="refuse",
        show_default=True,
        help="Saves without a date, with --as-of.",
    )
    @click.option("--memory-limit", metavar="SIZE", help="Of the counting for --as-of, for instance 500MB.")
    @click.option(
        "--check", metavar="OUT_DIR", help="In place of exporting: compare an export with its manifest."
    )
    def export(
        arguments: tuple[str, ...], check: str | None, as_json: bool, **options: Any
    ) -> dict[str, Any]:
        """Write what a trainer reads: one row per pin, shuffled, in shards of Parquet with a manifest and a
        data card.

        With --as-of and --pairs nothing that was done after the day reaches a feature, and what was done
        after it is what to learn. The same store, seed and options give the same bytes; an earlier export is
        replaced when the new one is whole.

        \b
        captioner export my.db out/
        captioner export my.db out/ --as-of 2026-06-01 --pairs --test-from 2026-06-24
        captioner export --check out/
        """
        if check is not None:
            if arguments:
                raise click.UsageError("--check takes the export alone: captioner export --check OUT_DIR")
            return _check(check, as_json)
        if len(arguments) != 2:
            raise click.UsageError("a store and a folder to write into: captioner export STORE OUT_DIR")
        if not options["as_of"] and (options["undated"] != "refuse" or options["memory_limit"]):
            raise click.UsageError(
                "--undated and --memory-limit are about counting anew: they go with --as-of"
            )
        if options["pairs"] and not options["as_of"]:
            raise click.UsageError("--pairs needs --as-of: the day up to which features know what happened")
        if options["test_from"] and not options["pairs"]:
            raise click.UsageError("--test-from splits the pairs: it goes with --pairs")
        if options["test_from"] and options["test_from"] <= options["as_of"]:
            raise click.UsageError("--test-from must be later than --as-of: there are no pairs before")
        found = _export(*arguments, **options)
        if not as_json:
            _print(found)
        return found


def _export(
    store: str, folder: str, *, format_: Any, shards: int | None, seed: int, recipe: str | None, schema: Any, as_of: datetime | None, pairs: bool, test_from: datetime | None,
    undated: Any, memory_limit: str | None,
) -> dict[str, Any]:  # fmt: skip
    from ..export.write import (
        ROWS_PER_PAIR_GROUP,
        ROWS_PER_PAIR_SHARD,
        ExportOptions,
        new_export,
        write_features,
        write_stream,
    )
    from ..filters.as_of import engagements_after, known_on
    from ..filters.evidence import hold_evidence
    from ..store import is_writable, one_moment, open_store
    from ..store.embeddings import dimensions
    from ..store.recipes import find_recipe
    from ..store.runs import finish_run, start_run

    recorded = is_writable(store)  # a store that cannot be written can be exported too
    conn = open_store(store, read_only=not recorded)
    chosen = ExportOptions(
        format_,
        shards,
        seed,
        schema,
        find_recipe(conn, recipe) if recipe else None,
        str(as_of.date()) if as_of else None,
    )
    with (
        new_export(Path(folder), chosen) as export,
        steps({"reading": "pins", "writing": "files"}) as on_step,
        ExitStack() as stack,
    ):
        arguments = {
            "folder": folder,
            "pairs": pairs,
            "test_from": str(test_from.date()) if test_from else None,
            "undated": undated,
        }
        run_id = start_run(conn, "export", arguments | vars(chosen)) if recorded else None
        manifest = export.manifest
        if as_of:
            stack.enter_context(hold_evidence(conn))
        stack.enter_context(one_moment(conn))
        if as_of:
            on_step("counting what was known then", 0, None)
            known = stack.enter_context(
                known_on(conn, as_of.date(), undated=undated, memory_limit=memory_limit)
            )
            manifest |= {"then": known.counts | {"undated": undated}}
        embeddings = dimensions(conn)
        manifest |= write_features(conn, export, embeddings=embeddings, on_step=on_step)
        models = {
            row["recipe_id"]: row["model"] for row in conn.execute("SELECT recipe_id, model FROM recipes")
        }
        manifest |= {
            "recipe": chosen.recipe or "current",
            "models": {recipe: models[recipe] for recipe in manifest["recipes"]},
            "embeddings": embeddings,
        }
        if pairs:
            on_step("counting what came after", 0, None)
            with engagements_after(
                known, test_from=test_from.date() if test_from else None, seed=seed, memory_limit=memory_limit
            ) as after:
                for name in ("pairs", "query_pairs"):
                    for split, (rows, arrow_schema, batches) in after[name].items():
                        write_stream(
                            export,
                            f"{name}/{split}",
                            rows,
                            arrow_schema,
                            batches(),
                            shards=-(-rows // ROWS_PER_PAIR_SHARD),
                            group=ROWS_PER_PAIR_GROUP,
                            on_step=on_step,
                        )
                manifest |= {
                    "pairs": {
                        name: {split: found[0] for split, found in after[name].items()}
                        for name in ("pairs", "query_pairs")
                    },
                    "pairs_dropped": after["dropped"],
                }
                manifest |= {"test_from": str(test_from.date()) if test_from else None}
    counts: dict[str, Any] = {
        name: manifest[name]
        for name in ("rows", "recipes", "embeddings", "then", "pairs", "pairs_dropped")
        if name in manifest
    }
    counts |= {"files": len(export.files), "bytes": sum(f["bytes"] for f in export.files), "folder": folder}
    if run_id is None:
        say(f"{store} cannot be written: this export is not recorded among its runs")
    else:
        finish_run(conn, run_id, counts)
    return counts


def _print(found: dict[str, Any]) -> None:
    size = f"{found['bytes'] / 1e6:,.1f} MB" if found["bytes"] >= 1e6 else f"{found['bytes'] / 1e3:,.0f} kB"
    click.echo(
        f"{plural(found['rows'], 'pin')} in {plural(found['files'], 'file')}, {size}: {found['folder']}"
    )
    for name, dim in found["embeddings"].items():
        click.echo(f"  {name}: vectors of {dim:,} numbers")
    if later := found.get("then", {}).get("pins_made_later"):
        click.echo(f"  left out: {plural(later, 'pin')} made after the day")
    for name, label in (("pairs", "query-pin pairs"), ("query_pairs", "query-query pairs")):
        for split, rows in found.get("pairs", {}).get(name, {}).items():
            click.echo(f"  {rows:>12,} {label}, {split}")
    for reason, n in found.get("pairs_dropped", {}).items():
        click.echo(f"  {n:>12,} rows of the log left out: {reason}")


def _check(folder: str, as_json: bool) -> dict[str, Any]:
    import json
    import sys

    from ..export.write import check_export

    found = check_export(Path(folder))
    if not as_json:
        for problem in found["problems"]:
            click.echo(problem)
        if found["ok"]:
            click.echo(
                f"{folder} is as it was written: {plural(found['files'], 'file')}, {plural(found['rows'], 'pin')}"
            )
    if not found["ok"]:
        if as_json:
            click.echo(json.dumps(found, ensure_ascii=False))
        sys.exit(1)
    return found
