"""How visitors choose among the pins: by words, and by facets."""

from __future__ import annotations

import re
from typing import Any

from datasette.database import QueryInterrupted
from datasette.facets import Facet
from datasette.filters import FilterArguments
from datasette.utils import path_with_removed_args, path_with_replaced_args

FACETS = {
    "status": "Caption",
    "reason": "Why there is none",
    "category": "Category",
    "kind": "Kind",
    "board_titles": "Board titles",
    "engaged_queries": "Queries",
    "texts": "Found by",
}
# columns of JSON arrays, and the parameter that asks for one of their texts
ARRAYS = {"board_titles": "_title", "engaged_queries": "_query"}
MANY = 50_000  # pins; the texts of more are not counted


def filters(request: Any) -> FilterArguments:
    """`_search`: pins with words that begin like these, or of this id.

    `_title` and `_query`: with exactly this board title or query, which the full-text index helps to find.
    """
    clauses, said = [], []
    parameters: dict[str, str] = {}
    if search := request.args.get("_search", "").strip():
        words = (
            f'"{word}"{"*" if len(word) > 2 or not word.isascii() else ""}'
            for word in _phrase(search).split()
        )
        clauses.append(
            "(pins.rowid IN (SELECT rowid FROM pins_fts WHERE pins_fts MATCH :words) OR pins.pin_id = :search)"
        )
        parameters |= {"words": " ".join(words) or '""', "search": search}
        said.append(f'search matches "{search}"')
    for column, name in ARRAYS.items():
        for i, value in enumerate(request.args.getlist(name)):
            clauses.append(
                f"pins.rowid IN (SELECT rowid FROM pins_fts WHERE pins_fts MATCH :{name}{i}_phrase) AND :{name}{i} IN (SELECT value FROM json_each(pins.{column}))"
            )
            parameters |= {f"{name}{i}": value, f"{name}{i}_phrase": f'{column} : "{_phrase(value)}"'}
            said.append(f'{"board title" if name == "_title" else "query"} = "{value}"')
    return FilterArguments(clauses, parameters, said, {"search": search})


def _phrase(value: str) -> str:
    return value.replace('"', " ").replace("\0", " ")


class PinFacet(Facet):  # type: ignore[misc]
    """Datasette's column and array facets of our own columns, less what makes them slow on many pins: its
    array facet joins all rows with all texts.
    """

    type = "pins"

    async def facet_results(self) -> tuple[list[dict[str, Any]], list[str]]:
        found, too_long = [], []
        # of all pages, not of those from this one on
        sql = re.sub(r"(where|and) \(\(pin_id > :p\d+\)\) $", "", self.sql)
        for column in dict.fromkeys(config["config"].get("simple") for config in self.get_configs()):
            if column not in FACETS:
                continue
            value, source = (
                (f"i.{column}", f"({sql}) i")
                if column not in ARRAYS
                else ("j.value", f"({sql}) i, json_each(i.{column}) j")
            )
            try:
                if column in ARRAYS and (self.row_count is None or self.row_count > MANY):
                    raise QueryInterrupted(None, sql, self.params)
                counted = f"SELECT {value} AS value, count(*) AS count FROM {source} WHERE {value} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {self.get_facet_size() + 1}"
                rows = (
                    await self.ds.execute(
                        self.database,
                        counted,
                        self.params,
                        custom_time_limit=self.ds.setting("facet_time_limit_ms"),
                    )
                ).rows
            except QueryInterrupted:
                too_long.append(FACETS[column])
                continue
            results = [
                self._result(ARRAYS.get(column, column), row["value"], row["count"])
                for row in rows[: self.get_facet_size()]
            ]
            found.append(
                {
                    "name": column,
                    "type": self.type,
                    "hideable": False,
                    "results": results,
                    "truncated": len(rows) > len(results),
                }
            )
        return found, too_long

    def _result(self, parameter: str, value: str, count: int) -> dict[str, Any]:
        selected = str(value) in self.request.args.getlist(parameter)
        path = path_with_replaced_args(
            self.request, {"_next": None} if selected else {"_next": None, parameter: value}
        )
        return {
            "value": value,
            "label": value,
            "count": count,
            "selected": selected,
            "toggle_url": path_with_removed_args(self.request, {parameter, "_next"}) if selected else path,
        }
