"""An export: the store as files for a trainer, with a manifest and a data card.

The same store, seed, options and versions give the same bytes. An export is written in a folder beside the
target, and takes the target's place when it is complete.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from ..common.errors import OptionError
from ..common.terminal import OnStep, no_step
from ..filters.as_of import Known, Undated, known_on
from ..filters.evidence import hold_evidence
from ..store import Connection, one_moment, rules
from ..store.embeddings import dimensions
from ..store.recipes import find_recipe, models_of_recipes
from ..store.runs import finish_run, start_run, version_of
from ..store.schema import MIGRATIONS
from ..store.stats import captions_by_people
from .card import data_card
from .features import Schema, write_features
from .folder import new_folder
from .manifest import CARD, FORMAT, ExportFile, Manifest, file_sha256, write_manifest
from .pairs import engagements_after
from .pictures import PICTURE_FORMATS, export_pictures
from .shards import Format, write_shards

ROWS_PER_PAIR_SHARD, ROWS_PER_PAIR_GROUP = 2_000_000, 200_000
VERSIONS = ("pincaption", "pyarrow", "duckdb", "sqlite-utils")  # which may change the bytes of an export

PictureFormat = Literal["sidecar", "imagefolder", "webdataset"]


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how. Raises OptionError for options that contradict one another."""

    format: Format | PictureFormat = "parquet"
    shards: int | None = None  # files of features; None: one for every 250,000 pins
    seed: int = 0  # decides the order of the rows
    schema: Schema = "store"  # names of the text columns: ours, or those of the OmniSearchSage code
    recipe: str | None = None  # its captions in place of the current ones: a recipe_id, its start, or a model
    as_of: date | None = None  # board titles and queries as they were known on this day
    pairs: bool = False  # also what people did after `as_of`
    test_from: date | None = None  # pairs of this day and later are the split "test"
    undated: Undated = "refuse"  # what becomes of saves without a date, with `as_of`
    memory_limit: str | None = None  # for counting with `as_of`, such as "500MB"

    def __post_init__(self) -> None:
        if self.format in PICTURE_FORMATS:
            given = {
                "--as-of": self.as_of,
                "--pairs": self.pairs,
                "--seed": self.seed,
                "--schema": self.schema != "store",
                "--shards": self.shards if self.format != "webdataset" else None,
            }
            if wrong := [name for name, value in given.items() if value]:
                raise OptionError(
                    f"{' and '.join(wrong)} concern features for a trainer: --format {self.format} writes "
                    "pictures with their texts"
                )
        if not self.as_of and (self.undated != "refuse" or self.memory_limit):
            raise OptionError("--undated and --memory-limit concern counting for a day: they need --as-of")
        if self.pairs and not self.as_of:
            raise OptionError("--pairs needs --as-of: the day up to which the features know what happened")
        if self.test_from and not self.pairs:
            raise OptionError("--test-from splits the pairs: it needs --pairs")
        if self.test_from and self.as_of and self.test_from <= self.as_of:
            raise OptionError("--test-from must be later than --as-of: there are no pairs before")


class ExportResult(TypedDict):
    """What `export` wrote. `then` comes only with `as_of`, `pairs` and `pairs_dropped` only with `pairs`."""

    rows: int  # pins
    recipes: dict[str, int]  # recipe_id -> captions; "person" for those that people wrote
    captions_by_people_left_out: NotRequired[int]  # with `recipe`, if there are any
    embeddings: dict[str, int]  # name -> numbers in a vector
    then: NotRequired[dict[str, Any]]  # undated, pins_made_later, saves_without_date
    pairs: NotRequired[dict[str, dict[str, int]]]  # "pairs" and "query_pairs" -> split -> rows
    pairs_dropped: NotRequired[dict[str, int]]  # reason -> rows of the log
    left_out: NotRequired[dict[str, int]]  # of formats with pictures: reason -> pins
    truncated: NotRequired[int]  # of formats with pictures: captions of images that end early
    files: int
    bytes: int
    folder: str


def export(
    conn: Connection,
    out_dir: str | Path,
    options: ExportOptions = ExportOptions(),
    *,
    record: bool = True,
    on_step: OnStep = no_step,
) -> ExportResult:
    """Writes an export of the store to the folder `out_dir`, in place of an earlier one.

    Everything is read as it was at one moment, whoever writes to the store meanwhile. `record` notes the
    export in the table `runs`; it must be False for a store that was opened read-only. Raises StoreError for
    an unknown recipe, a folder that is not an export, saves without a date where `undated` is "refuse", and
    when another process aggregates (with `as_of`).
    """
    recipe_id = find_recipe(conn, options.recipe) if options.recipe else None
    by_people = captions_by_people(conn) if recipe_id else 0
    left_out = {"captions_by_people_left_out": by_people} if by_people else {}
    if options.format in PICTURE_FORMATS:
        run_id = start_run(conn, "export", _arguments(out_dir, options, recipe_id)) if record else None
        written = export_pictures(
            conn, out_dir, options.format, recipe_id=recipe_id, shards=options.shards, on_step=on_step
        )
        written |= left_out
        if run_id is not None:
            finish_run(conn, run_id, written)
        return cast(ExportResult, written)
    with new_folder(Path(out_dir)) as folder:
        run_id = start_run(conn, "export", _arguments(out_dir, options, recipe_id)) if record else None
        manifest = _write(conn, folder, options, recipe_id, on_step)
        (folder / CARD).write_text(data_card(manifest), encoding="utf-8")
        manifest["card_sha256"] = file_sha256(folder / CARD)
        write_manifest(folder, manifest)
    result = cast(ExportResult, {**_result(manifest, str(out_dir)), **left_out})
    if run_id is not None:
        finish_run(conn, run_id, dict(result))
    return result


def _arguments(out_dir: str | Path, options: ExportOptions, recipe_id: str | None) -> dict[str, Any]:
    """The options as the table `runs` keeps them."""
    return {
        "folder": str(out_dir),
        "pairs": options.pairs,
        "test_from": _text(options.test_from),
        "undated": options.undated,
        "format": options.format,
        "shards": options.shards,
        "seed": options.seed,
        "schema": options.schema,
        "recipe": recipe_id,
        "as_of": _text(options.as_of),
    }


def _write(
    conn: Connection, folder: Path, options: ExportOptions, recipe_id: str | None, on_step: OnStep
) -> Manifest:
    """Writes features/ and the pairs, and returns the manifest without the digest of the data card."""
    manifest: dict[str, Any] = {"format": FORMAT}
    with ExitStack() as stack:
        known: Known | None = None
        if options.as_of:
            stack.enter_context(hold_evidence(conn, read_only=True))
        stack.enter_context(one_moment(conn))
        if options.as_of:
            on_step("counting what was known then", 0, None)
            known = stack.enter_context(
                known_on(conn, options.as_of, undated=options.undated, memory_limit=options.memory_limit)
            )
            manifest["then"] = known.left_out | {"undated": options.undated}
        embeddings = dimensions(conn)
        features = write_features(
            conn,
            folder,
            seed=options.seed,
            format=cast(Format, options.format),
            shards=options.shards,
            schema=options.schema,
            recipe_id=recipe_id,
            as_of=_text(options.as_of),
            embeddings=embeddings,
            on_step=on_step,
        )
        models = models_of_recipes(conn)
        manifest |= {
            "rows": features.rows,
            "columns": features.columns,
            "recipes": features.recipes,
            "recipe": recipe_id or "current",
            "models": {recipe: models[recipe] for recipe in features.recipes if recipe != rules.PERSON},
            "embeddings": embeddings,
        }
        files = features.files
        if known and options.pairs:
            pairs, pair_files = _write_pairs(known, folder, options, on_step)
            manifest |= pairs
            files += pair_files
    manifest |= {
        "seed": options.seed,
        "as_of": _text(options.as_of),
        "schema": options.schema,
        "store_schema_version": len(MIGRATIONS),
        "store_migrations": list(MIGRATIONS),
        "versions": {name: version_of(name) for name in VERSIONS},
        "files": files,
    }
    return cast(Manifest, manifest)


def _write_pairs(
    known: Known, folder: Path, options: ExportOptions, on_step: OnStep
) -> tuple[dict[str, Any], list[ExportFile]]:
    """Writes pairs/ and query_pairs/. Returns their part of the manifest, and their files."""
    files: list[ExportFile] = []
    on_step("counting what came after", 0, None)
    with engagements_after(
        known, test_from=options.test_from, seed=options.seed, memory_limit=options.memory_limit
    ) as engagements:
        for table, splits in engagements.tables.items():
            for split, pairs in splits.items():
                files += write_shards(
                    folder,
                    f"{table}/{split}",
                    pairs.rows,
                    pairs.schema,
                    pairs.read(),
                    format=cast(Format, options.format),
                    shards=-(-pairs.rows // ROWS_PER_PAIR_SHARD),
                    group_rows=ROWS_PER_PAIR_GROUP,
                    on_step=on_step,
                )
    counts = {
        table: {split: pairs.rows for split, pairs in splits.items()}
        for table, splits in engagements.tables.items()
    }
    part = {"pairs": counts, "pairs_dropped": engagements.dropped, "test_from": _text(options.test_from)}
    return part, files


def _result(manifest: Manifest, folder: str) -> ExportResult:
    kept = ("rows", "recipes", "embeddings", "then", "pairs", "pairs_dropped")
    result: dict[str, Any] = {name: dict(manifest)[name] for name in kept if name in manifest}
    size = sum(file["bytes"] for file in manifest["files"])
    result |= {"files": len(manifest["files"]), "bytes": size, "folder": folder}
    return cast(ExportResult, result)


def _text(day: date | None) -> str | None:
    return str(day) if day else None
