"""The kinds of tables that are read: boards, saves and the query log, each with its fields and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FieldType = Literal["id", "text", "day", "count"]


@dataclass(frozen=True)
class TableKind:
    """A kind of table: its fields, and the SQL that turns its rows into numbered ones."""

    fields: Mapping[str, FieldType]  # those that are read
    required: tuple[str, ...]  # fields that each row must have; "a|b": one of the two
    # codebook -> field whose values it numbers; "" for the normalised texts of `text_field`
    codebooks: Mapping[str, str]
    # SQL for the rows as they are kept in STORE.partials. It reads the view good (source, line, and the
    # fields), a view {codebook}_codes (code, text) per codebook, and the table normalised (raw, text, reason;
    # with the codebook queries code in place of text).
    rows: str
    columns: str  # the columns of those rows and `place`, for a table that has no rows
    ignored: tuple[str, ...] = ()  # fields that may be there and are not read
    text_field: str = ""  # the field with a text that people wrote

    @property
    def names(self) -> tuple[str, ...]:
        """All fields, those that are not read included."""
        return (*self.fields, *self.ignored)

    @property
    def alternatives(self) -> list[list[str]]:
        """Fields of which each row must have one."""
        return [names.split("|") for names in self.required if "|" in names]

    def is_optional(self, field: str) -> bool:
        """Whether a cell of the field that makes no sense costs that cell alone, and not its row.

        A count that makes no sense is not taken for 1.
        """
        return field not in self.required and self.fields[field] != "count"


BOARDS = TableKind(
    fields={"board_id": "id", "title": "text", "created_at": "day"},
    required=("board_id", "title"),
    codebooks={"boards": "board_id"},
    rows="""
        SELECT r.source, r.line, b.code AS board, t.text AS title,
            CASE WHEN r.title IS NULL THEN 'empty' ELSE t.reason END AS reason, r.created_at AS day
        FROM good r
        JOIN boards_codes b ON b.text = r.board_id
        LEFT JOIN normalised t ON t.raw = r.title""",
    columns="""0::INTEGER AS source, 0 AS place, 0::BIGINT AS line, 0::INTEGER AS board, ''::VARCHAR AS title,
        ''::VARCHAR AS reason, NULL::DATE AS day""",
    ignored=("owner_id",),
    text_field="title",
)
SAVES = TableKind(
    fields={"pin_id": "id", "board_id": "id", "saved_at": "day"},
    required=("pin_id", "board_id"),
    codebooks={"pins": "pin_id", "boards": "board_id"},
    rows="""
        SELECT r.source, p.code AS pin, b.code AS board, r.saved_at AS day
        FROM good r
        JOIN pins_codes p ON p.text = r.pin_id
        JOIN boards_codes b ON b.text = r.board_id""",
    columns="0::INTEGER AS source, 0 AS place, 0::INTEGER AS pin, 0::INTEGER AS board, NULL::DATE AS day",
    ignored=("user_id",),
)
# A user id serves for counting people only. One that could be an e-mail address or a name is kept as a hash.
LOG = TableKind(
    fields={
        "pin_id": "id",
        "query": "text",
        "action": "id",
        "date": "day",
        "timestamp": "day",
        "count": "count",
        "user_id": "id",
    },
    required=("pin_id", "query", "action", "date|timestamp"),
    codebooks={"pins": "pin_id", "queries": ""},
    rows="""
        SELECT r.source, p.code AS pin, t.code AS query,
            CASE WHEN r.query IS NULL THEN 'empty' ELSE t.reason END AS reason, r.action,
            coalesce(r.date, r.timestamp) AS day, coalesce(r.count, 1)::INTEGER AS count,
            CASE WHEN regexp_full_match(r.user_id, '[0-9A-Za-z_-]*') THEN r.user_id ELSE md5(r.user_id) END
                AS user_id
        FROM good r
        JOIN pins_codes p ON p.text = r.pin_id
        LEFT JOIN normalised t ON t.raw = r.query""",
    columns="""0::INTEGER AS source, 0 AS place, 0::INTEGER AS pin, 0::INTEGER AS query,
        ''::VARCHAR AS reason, ''::VARCHAR AS action, DATE '2000-01-01' AS day, 1::INTEGER AS count,
        ''::VARCHAR AS user_id""",
    text_field="query",
)
TABLE_KINDS = {"boards": BOARDS, "saves": SAVES, "log": LOG}
