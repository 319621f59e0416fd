"""How visitors find pins: the search and the filters beside the list."""

from __future__ import annotations

import re
from typing import Any

from datasette.database import QueryInterrupted
from datasette.facets import Facet
from datasette.filters import FilterArguments
from datasette.utils import path_with_removed_args, path_with_replaced_args

FACETS = {
    "status": "Caption",
    "reason": "Why there is no caption",
    "category": "Category",
    "kind": "Kind",
    "board_titles": "Board titles",
    "engaged_queries": "Queries",
    "texts": "Texts",
}
# Columns with JSON arrays of texts, each with the URL parameter that filters by one of the texts.
ARRAYS = {"board_titles": "_title", "engaged_queries": "_query"}
MANY = 50_000  # pins: of more, the texts are not counted


def filters(request: Any) -> FilterArguments:
    """The conditions that the parameters of a request set.

    `_search` finds pins with words that begin like these, or with this id. `_title` and `_query` find pins
    with exactly this board title or query; the full-text index makes that fast.
    """
    clauses, in_words = [], []
    parameters: dict[str, str] = {}
    if search := request.args.get("_search", "").strip():
        words = (
            f'"{word}"{"*" if len(word) > 2 or not word.isascii() else ""}'
            for word in _phrase(search).split()
        )
        clauses.append(
            "(pins.rowid IN (SELECT rowid FROM pins_fts WHERE pins_fts MATCH :words)"
            " OR pins.pin_id = :search)"
        )
        parameters |= {"words": " ".join(words) or '""', "search": search}
        in_words.append(f'search matches "{search}"')
    for column, name in ARRAYS.items():
        for i, value in enumerate(request.args.getlist(name)):
            clauses.append(
                f"pins.rowid IN (SELECT rowid FROM pins_fts WHERE pins_fts MATCH :{name}{i}_phrase)"
                f" AND :{name}{i} IN (SELECT value FROM json_each(pins.{column}))"
            )
            parameters |= {f"{name}{i}": value, f"{name}{i}_phrase": f'{column} : "{_phrase(value)}"'}
            in_words.append(f'{"board title" if name == "_title" else "query"} = "{value}"')
    return FilterArguments(clauses, parameters, in_words, {"search": search})


def _phrase(value: str) -> str:
    return value.replace('"', " ").replace("\0", " ")


class PinFacet(Facet):  # type: ignore[misc]
    """Counts the values of a column, or the texts of a column of JSON arrays, like the facets of Datasette.

    Datasette's own array facet joins all rows with all texts, which is slow if there are many pins.
    """

    type = "pins"

    async def facet_results(self) -> tuple[list[dict[str, Any]], list[str]]:
        facets, timed_out = [], []
        # Without the condition that paging adds: counts are for all pages, not from this page on.
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
                counted = (
                    f"SELECT {value} AS value, count(*) AS count FROM {source} WHERE {value} IS NOT NULL"
                    f" GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {self.get_facet_size() + 1}"
                )
                rows = (
                    await self.ds.execute(
                        self.database,
                        counted,
                        self.params,
                        custom_time_limit=self.ds.setting("facet_time_limit_ms"),
                    )
                ).rows
            except QueryInterrupted:
                timed_out.append(FACETS[column])
                continue
            results = [
                self._result(ARRAYS.get(column, column), row["value"], row["count"])
                for row in rows[: self.get_facet_size()]
            ]
            facets.append(
                {
                    "name": column,
                    "type": self.type,
                    "hideable": False,
                    "results": results,
                    "truncated": len(rows) > len(results),
                }
            )
        return facets, timed_out

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
