"""README.md of an export: a data card for people. `datasets.load_dataset` finds the files by it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..common.terminal import plural
from ..store import rules
from .manifest import Manifest

LISTS = (
    "Lists are in rank order and never null. `manifest.json` has the SHA-256 of every file;"
    " `captioner export --check` verifies them."
)


def data_card(manifest: Manifest) -> str:
    """The text of the card."""
    columns = "\n".join(f"| {column['name']} | {column['type']} |" for column in manifest["columns"])
    recipes = "".join(f"- {_made_by(recipe, n, manifest)}\n" for recipe, n in manifest["recipes"].items())
    builtin = "builtin" in manifest["models"].values()
    return f"""---
configs:
{chr(10).join(_configs(manifest))}
---
# Enriched features

{_summary(manifest)}
{_as_of(manifest)}{recipes}{"The built-in checkpoint knows drawn pictures only." + chr(10) if builtin else ""}
| column | type |
|---|---|
{columns}

{LISTS}
"""


def _made_by(recipe: str, n: int, manifest: Manifest) -> str:
    if recipe == rules.PERSON:
        return f"{plural(n, 'caption')} written by people (caption_recipe is `{rules.PERSON}`)"
    model = manifest["models"].get(recipe, "unknown model")
    return f"{plural(n, 'caption')} of recipe {recipe} ({model})"


def _summary(manifest: Manifest) -> str:
    return (
        f"{plural(manifest['rows'], 'pin')} with their own text, captions, board titles and engaged queries,"
        f" written by `captioner export`. Rows are shuffled with seed {manifest['seed']}."
    )


def _configs(manifest: Manifest) -> list[str]:
    """The lines that `datasets.load_dataset` reads."""
    paths = [file["path"] for file in manifest["files"]]
    ending = "jsonl" if any(path.endswith(".jsonl") for path in paths) else "parquet"
    # `datasets` caches what it has loaded under the name of the folder and this version. If every export had
    # the same version, it would take another export of that name for this one.
    content = "".join(file["path"] + file["sha256"] for file in manifest["files"])
    digest = hashlib.sha256(content.encode()).hexdigest()
    version = f"  version: 1.{int(digest[:8], 16)}.{int(digest[8:16], 16)}"
    lines = ["- config_name: features", version, f"  data_files: features/*.{ending}", "  default: true"]
    for name in ("pairs", "query_pairs"):
        splits = {Path(path).name.split("-")[0] for path in paths if path.startswith(f"{name}/")}
        if splits:
            lines += [f"- config_name: {name}", version, "  data_files:"]
        for split in sorted(splits, reverse=True):  # train before test
            lines += [f"  - split: {split}", f"    path: {name}/{split}-*.{ending}"]
    return lines


def _as_of(manifest: Manifest) -> str:
    """A sentence about the day up to which the features know what happened."""
    if not manifest["as_of"]:
        return ""
    then = manifest.get("then", {})
    undated = then.get("undated") == "include" and then["saves_without_date"]
    later = (
        f", but for {plural(undated, 'save')} without a date, which may be later"
        if undated
        else ": nothing later reaches them"
    )
    vectors = "and vectors " if manifest["embeddings"] else ""
    return (
        f"Board titles and queries are what was known on {manifest['as_of']}{later}."
        f" Native text {vectors}are of the day of the export.\n"
    )
