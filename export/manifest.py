"""manifest.json: what an export holds, and whether its files are still as they were written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from ..common.terminal import plural
from ..store.connection import StoreError

FORMAT = "pincaption features 1"
PICTURES = "pincaption pictures 1"  # of the exports that `export/pictures.py` writes
MANIFEST, CARD = "manifest.json", "README.md"  # the two files that the manifest itself does not list


class ExportFile(TypedDict):
    """A file of an export. `path` is relative to the folder of the export."""

    path: str
    rows: int
    bytes: int
    sha256: str


class Manifest(TypedDict):
    """The contents of manifest.json."""

    format: str
    then: NotRequired[dict[str, Any]]  # with `as_of`: what was left out because it came later or has no date
    rows: int  # pins
    columns: list[dict[str, str]]  # {"name", "type"} of each column of features/, in order
    recipes: dict[str, int]  # recipe_id -> captions; "person" for those that people wrote
    recipe: str  # the recipe that was asked for, or "current"
    models: dict[str, str]  # recipe_id -> model; "person" has none
    embeddings: dict[str, int]  # name -> numbers in a vector
    pairs: NotRequired[dict[str, dict[str, int]]]  # "pairs" and "query_pairs" -> split -> rows
    pairs_dropped: NotRequired[dict[str, int]]  # reason -> rows of the log
    test_from: NotRequired[str | None]
    seed: int
    as_of: str | None
    schema: str
    store_schema_version: int
    store_migrations: list[str]
    versions: dict[str, str | None]
    files: list[ExportFile]
    card_sha256: str


class CheckResult(TypedDict):
    """What `check_export` found: `rows` and `files` as the manifest has them, a sentence for each problem."""

    ok: bool
    rows: int
    files: int
    problems: list[str]


def read_manifest(folder: Path, formats: tuple[str, ...] = (FORMAT,)) -> Manifest | None:
    """The manifest of an export; None where there is no manifest, or one that is not ours or incomplete.

    Only `format`, `rows` and `files` are verified. `formats`: which exports count; FORMAT alone has features.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        complete = manifest["format"].startswith(tuple(name.rpartition(" ")[0] for name in formats))
        complete = complete and isinstance(manifest["rows"], int)
        complete = complete and all(
            isinstance(f["path"], str) and isinstance(f["rows"], int) and f["bytes"] >= 0 and f["sha256"]
            for f in manifest["files"]
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return cast(Manifest, dict(manifest)) if complete else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json."""
    text = json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def check_export(folder: Path) -> CheckResult:
    """Compares the files of an export with its manifest.

    Raises StoreError for a folder that is not an export, or an export of another version.
    """
    manifest = read_manifest(folder, (FORMAT, PICTURES))
    if manifest is None:
        raise StoreError(f"{folder} is not an export: it has no complete manifest.json of captioner")
    if manifest["format"] not in (FORMAT, PICTURES):
        raise StoreError(
            f"{folder} was written by another version of captioner ({manifest['format']}):"
            " check it with that version"
        )
    problems = [problem for file in manifest["files"] if (problem := _problem(folder, file))]
    problems += [f"{name} is not named in the manifest" for name in unlisted_files(folder)]
    has_features = manifest["format"] == FORMAT
    card = folder / CARD
    if has_features and (not card.is_file() or file_sha256(card) != manifest.get("card_sha256")):
        problems.append("README.md is missing or changed: datasets finds the files by it")
    start = "features/" if has_features else ""
    rows = sum(file["rows"] for file in manifest["files"] if file["path"].startswith(start))
    if rows != manifest["rows"]:
        files_of = "files of features" if has_features else "files"
        problems.append(
            f"manifest.json says {plural(manifest['rows'], 'row')}, but its {files_of} add up to {rows:,}"
        )
    files = len({file["path"] for file in manifest["files"]})
    return {"ok": not problems, "rows": manifest["rows"], "files": files, "problems": problems}


def _problem(folder: Path, file: ExportFile) -> str | None:
    """How a file differs from its entry in the manifest."""
    path = folder / file["path"]
    if not path.is_file():
        return f"{file['path']} is missing"
    if path.stat().st_size != file["bytes"]:
        return f"{file['path']} has {path.stat().st_size:,} bytes, not {file['bytes']:,}"
    if file_sha256(path) != file["sha256"]:
        return f"{file['path']} has other content than was written (SHA-256)"
    return None


def unlisted_files(folder: Path) -> list[str]:
    """Files below the folder of an export that its manifest does not list."""
    manifest = read_manifest(folder, (FORMAT, PICTURES))
    listed = {file["path"] for file in manifest["files"]} if manifest else set()
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    ours = {MANIFEST, CARD} if manifest and manifest["format"].startswith(FORMAT[:-1]) else {MANIFEST}
    return sorted(files - listed - ours)


def edited_texts(folder: Path) -> list[str]:
    """Texts of an export with pictures that somebody has changed since it was written."""
    manifest = read_manifest(folder, (PICTURES,))
    files = manifest["files"] if manifest else []
    texts = [file for file in files if file["path"].endswith((".txt", ".jsonl"))]
    return [file["path"] for file in texts if (folder / file["path"]).exists() and _problem(folder, file)]


def file_of(path: str, rows: int, data: bytes) -> ExportFile:
    """The entry of a file that was written with `data`."""
    return ExportFile(path=path, rows=rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
