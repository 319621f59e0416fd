"""Writes the pages that are generated: schema.md from the store's migrations, commands.md from `--help`.

    python docs/generate.py

Tests fail if a page differs from what this program would write.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from pincaption.cli import cli
from pincaption.store import open_store
from pincaption.store.schema import MIGRATIONS

FOLDER = Path(__file__).parent
COLUMNS_OF_TERMINAL = 100
NOTE = "<!-- Written by `python docs/generate.py`: change that, or the code that it reads, not this page. -->"

# What a table or view is for, if the comment above it in the migration is missing or is about something else.
PURPOSES = {
    "pins": "The catalogue: one row per pin or product, as the source has it.",
    "recipes": "What decides a caption besides the picture. `recipe_id` is a hash of the other columns.",
    "runs": "Which commands were run on this store, when, with which arguments, and what they did.",
    "captions": "What each recipe gave for each pin: a caption, a rejected caption, or why there is none.",
    "claims": "Which process is working on which pin, so that several runs can share the work. Empty when "
    "nothing runs.",
    "rejected_rows": "Rows of sources that could not be read, with the reason.",
    "file_digests": "Checksums of files, so that they are not computed again.",
    "board_titles": "The best titles of the boards that each pin was saved to, in rank order.",
    "engaged_queries": "The best queries after which people engaged with each pin, in rank order.",
    "board_title_ranks": "`board_titles` with one row per title.",
    "engaged_query_ranks": "`engaged_queries` with one row per query.",
    "enriched_features": "One row per pin that is not deleted, with all that is known about it. Trainers, "
    "exports and statistics read this view.",
    "sample_items": "The captions of a sample, as they were when they were drawn.",
    "sheet_rows": "The rows of each rater's sheet.",
    "ratings": "The answers of raters: one row for each row of a sheet.",
    "evidence_sources": "The path from which each content of `evidence` was read.",
}
# What a column holds, if its name does not say it and the migration has no comment beside it.
MEANINGS = {
    "pins.title": "as the source has it; the view shows it only if `has_title`",
    "pins.description": "the same, with `has_description`",
    "pins.created_at": "UTC, a date or a time",
    "pins.deleted_at": "null: the pin is not deleted",
    "recipes.weights_digest": "SHA-256 over the files of the checkpoint",
    "recipes.decoding": "number of tokens, of beams, ...",
    "runs.arguments": "credentials are replaced by `***`",
    "captions.text": "the caption, or what the model wrote if it was rejected",
    "captions.reason": "why it was rejected or failed",
    "captions.score": "how well caption and picture match, if that was measured",
    "captions.image_sha256": "of the captioned picture; if the pin has another one, the caption is stale",
    "captions.attempts": "how often it was tried",
    "board_titles.titles": "normalised titles, the best first",
    "board_titles.boards": "for each title, how many boards with it hold the pin",
    "board_titles.scores": "for each title",
    "engaged_queries.queries": "normalised queries, the best first",
    "engaged_queries.engagements": "for each query, the number of actions",
    "engaged_queries.scores": "for each query",
    "engaged_queries.first_dates": "for each query, the day of the first action that counts",
    "engaged_queries.last_dates": "for each query, the day of the last action that counts",
    "rejected_rows.source": "absolute path; `-` is standard input",
    "rejected_rows.line": "counted from 1; in Parquet and JSON arrays, the number of the row",
    "ratings.read_at": "when the sheet was read",
    "ratings.answered_at": "when the rater answered",
    "sheet_rows.is_repeat": "1: the rater gets this item for the second time",
}

SCHEMA_HEAD = f"""# The store
{NOTE}

The store is one SQLite file in WAL mode. Any number of programs may read it while one writes.
Times are UTC in ISO 8601, lists are JSON arrays in rank order, scores have six significant digits.

**Read these three views.** They do not change; tables may get more columns.

| view | one row per | what it is good for |
|---|---|---|
| [enriched_features](#enriched_features) | pin | everything about a pin in one row, lists as JSON arrays |
| [board_title_ranks](#board_title_ranks) | pin and board title | counting, joining and filtering by title |
| [engaged_query_ranks](#engaged_query_ranks) | pin and query | the same, by query |

Pins without a text of their own that have a caption:

```sql
SELECT pin_id, caption
FROM enriched_features
WHERE title IS NULL AND description IS NULL AND caption IS NOT NULL
ORDER BY pin_id
LIMIT 5;
```

The board titles that are most often the best one of a pin:

```sql
SELECT title, count(*) AS pins, sum(boards) AS boards
FROM board_title_ranks
WHERE rank = 1
GROUP BY title
ORDER BY pins DESC, title
LIMIT 5;
```

The pins that people found with a query, and what else is known about them:

```sql
SELECT q.pin_id, q.rank, q.engagements, q.last_date, f.title, f.caption
FROM engaged_query_ranks q
JOIN enriched_features f USING (pin_id)
WHERE q.query = 'red mug'
ORDER BY q.score DESC, q.pin_id
LIMIT 5;
```

Run them with `sqlite3 -readonly my.db`, `sqlite-utils query my.db`, pandas or DuckDB. Only `captioner` should
write to the store.
"""

COMMANDS_HEAD = f"""# Commands
{NOTE}

What `--help` prints, for every command. Results go to standard output, everything else to standard error.
With `--json`, standard output is exactly one JSON object. [api.md](api.md) has the same for Python.

| exit code | meaning |
|---|---|
| 0 | the command did its work |
| 1 | it could not; one sentence on standard error says why, and what to do |
| 2 | the command line was wrong |
| 130 | stopped by Ctrl-C; what was committed is kept |
"""


def pages() -> dict[str, str]:
    """The text of each generated page, by file name."""
    with tempfile.TemporaryDirectory() as folder:
        conn = open_store(Path(folder) / "empty.db", create=True)
        try:
            return {"schema.md": schema_page(conn), "commands.md": commands_page()}
        finally:
            conn.close()


def schema_page(conn: sqlite3.Connection) -> str:
    """The page on the store: views first, then tables in the order of the migrations that made them."""
    kinds = {row["name"]: row["type"] for row in conn.execute("PRAGMA main.table_list")}
    all_rows = conn.execute(
        "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid"
    ).fetchall()
    ours = [
        row
        for row in all_rows
        if not row["name"].startswith(("sqlite_", "_sqlite_")) and kinds[row["name"]] != "shadow"
    ]
    views = [row for row in ours if kinds[row["name"]] == "view"]
    tables = [row for row in ours if kinds[row["name"]] != "view"]
    views.sort(key=lambda row: row["name"] != "enriched_features")
    overview = "\n".join(f"| [{row['name']}](#{row['name']}) | {purpose(row['name'])} |" for row in tables)
    parts = [
        SCHEMA_HEAD,
        f"## Tables\n\n| table | what it is for |\n|---|---|\n{overview}\n",
        "## Views, column by column\n",
    ]
    parts += [_view(conn, row["name"], row["sql"]) for row in views]
    parts += ["## Tables, column by column\n"]
    parts += [_table(conn, row["name"], row["sql"]) for row in tables]
    return "\n".join(parts)


def purpose(name: str) -> str:
    """What a table or view is for, in a sentence or two; empty if nothing in the code says it."""
    if name in PURPOSES:
        return PURPOSES[name]
    return comment_above("TABLE|VIEW|VIRTUAL TABLE", name)


def comment_above(kind: str, name: str) -> str:
    """The comment above a CREATE statement in the migrations, as one line."""
    comments = re.findall(
        rf"((?:^[ \t]*--[^\n]*\n)+)[ \t]*CREATE (?:{kind}) {re.escape(name)}\b",
        "\n".join(MIGRATIONS.values()),
        re.MULTILINE,
    )
    if not comments:
        return ""
    return " ".join(line.strip().removeprefix("--").strip() for line in comments[-1].splitlines())


def _view(conn: sqlite3.Connection, name: str, sql: str) -> str:
    columns = ", ".join(f"`{row['name']}`" for row in conn.execute(f"PRAGMA table_info({name})"))
    remark = comment_above("VIEW", name) if name in PURPOSES else ""
    about = " ".join(filter(None, [purpose(name), remark]))
    return f"### {name}\n\n{about}\n\nColumns: {columns}\n\n```sql\n{_dedented(sql)};\n```\n"


def _table(conn: sqlite3.Connection, name: str, sql: str) -> str:
    foreign = {
        row["from"]: f"→ [{row['table']}](#{row['table']})"
        for row in conn.execute(f"PRAGMA foreign_key_list({name})")
    }
    unique, indexes = [], []
    for index in conn.execute(f"PRAGMA index_list({name})").fetchall():
        columns = ", ".join(str(row["name"]) for row in conn.execute(f"PRAGMA index_info({index['name']})"))
        if index["origin"] == "u":
            unique.append(f"({columns})")
        elif index["origin"] == "c":
            indexes.append(f"`{index['name']}` ({columns})")
    rows = []
    for column in conn.execute(f"PRAGMA table_info({name})"):
        line = _line_of(column["name"], sql)
        key = " ".join(filter(None, ["primary" if column["pk"] else "", foreign.get(column["name"], "")]))
        null = "" if column["notnull"] or (column["pk"] and column["type"] == "INTEGER") else "null"
        about = _about(name, column["name"], column["dflt_value"], line)
        rows.append(f"| {column['name']} | {column['type'].lower()} | {null} | {key} | {about} |")
    parts = [f"### {name}\n", purpose(name)]
    if name in PURPOSES and (remark := comment_above("TABLE", name)):
        parts[-1] += f" {remark}"
    parts += ["", "| column | type | null | key | |", "|---|---|---|---|---|", *rows, ""]
    ends = [
        f"Unique: {', '.join(unique)}." if unique else "",
        f"Indexes: {', '.join(indexes)}." if indexes else "",
    ]
    for trigger in conn.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? ORDER BY rowid", [name]
    ):
        ends.append(f"Trigger `{trigger['name']}`: {comment_above('TRIGGER', trigger['name'])}")
    if any(ends):
        parts += ["\n".join(filter(None, ends)), ""]
    return "\n".join(parts)


def _line_of(column: str, sql: str) -> str:
    return next((line for line in sql.splitlines() if re.match(rf"\s*{re.escape(column)}\s", line)), "")


def _about(table: str, column: str, default: str | None, line: str) -> str:
    """What a column holds: its allowed values, its default, and the comment beside it or that of MEANINGS."""
    definition, _, comment = line.partition("--")
    allowed = re.search(rf"\b{re.escape(column)} IN \(([^)]*)\)", definition)
    notes = [
        ", ".join(f"`{value.strip()}`".replace("'", "") for value in allowed[1].split(","))
        if allowed
        else "",
        "JSON" if "json_valid(" in definition else "",
        f"default `{default}`".replace("'", "") if default is not None else "",
        comment.strip() or MEANINGS.get(f"{table}.{column}", ""),
    ]
    return "; ".join(filter(None, notes)).replace("|", "\\|")


def _dedented(sql: str) -> str:
    """SQL of a migration without the indentation that it has in the Python file."""
    first, *rest = sql.splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    return "\n".join([first, *(line[indent:] for line in rest)])


def commands_page() -> str:
    """The page on the commands: an overview, then the help of each, in the order of the command line."""
    all_commands = list(commands())
    contents = "\n".join(
        f"| [{name}](#{name.replace(' ', '-')}) | {command.get_short_help_str(120)} |"
        for name, command, _ in all_commands
    )
    parts = [COMMANDS_HEAD, f"| command | |\n|---|---|\n{contents}\n"]
    parts += [f"## {name}\n\n```\n{help_text}\n```\n" for name, _, help_text in all_commands]
    return "\n".join(parts)


def commands(columns: int = COLUMNS_OF_TERMINAL) -> Iterator[tuple[str, click.Command, str]]:
    """(name, command, help on a terminal of so many columns) of `captioner` and of every command in it."""
    context = click.Context(cli, info_name="captioner", terminal_width=columns - 2, **cli.context_settings)
    yield from _commands(cli, context)


def _commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command, str]]:
    yield (
        context.command_path,
        command,
        "\n".join(line.rstrip() for line in command.get_help(context).splitlines()),
    )
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            if member and not member.hidden:
                yield from _commands(member, click.Context(member, info_name=name, parent=context))


def main() -> None:
    """Writes the pages that have changed and says which."""
    for name, text in pages().items():
        path = FOLDER / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if text != before:
            path.write_text(text, encoding="utf-8")
        click.echo(f"{path}: {'as it was' if text == before else 'written'}")


if __name__ == "__main__":
    main()
