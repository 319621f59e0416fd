"""Numbers of goods in queries stay: EAN, UPC, GTIN and ISBN. Telephone numbers and addresses do not."""

import json
from pathlib import Path

import pytest

from pincaption import api

from .table_commands import captioner, refused, rows, said

KEPT = ["9780141036144", "978-0-14-103614-4", "lego 4006381333931", "upc 036000291452", "4 006381 333931"]
PERSONAL = ["+1 (555) 123-4567", "WWW.SHOP.EXAMPLE", "call 0170 1234567", "jo@shop.example"]


def test_queries_with_the_number_of_a_good_are_kept(tmp_path: Path) -> None:
    store, log = tmp_path / "my.db", tmp_path / "log.jsonl"
    said("ingest", "pins", store, "-", stdin='{"pin_id": "p"}')
    log.write_text(
        "".join(
            json.dumps({"pin_id": "p", "query": query, "action": "save", "date": "2026-05-31"}) + "\n"
            for query in [*KEPT, *PERSONAL]
        )
    )
    found = api.aggregate_queries(store, log=log)
    assert found["dropped"]["personal data"] == len(PERSONAL)
    queries = {query for (query,) in rows(store, "SELECT query FROM engaged_query_ranks")}
    assert queries == {query.replace("-", " ") for query in KEPT}


@pytest.mark.parametrize("text", [*PERSONAL, "a mug, 0170\u200b1234\u200b567", "jo＠shop.example"])
def test_personal_data_is_no_caption_and_is_hidden_in_rejected_rows(tmp_path: Path, text: str) -> None:
    """Also where invisible characters stand in between, or full-width ones in their place."""
    store = tmp_path / "my.db"
    said("ingest", "pins", store, "-", stdin='{"pin_id": "p"}')
    assert "e-mail address, a link or a telephone number" in refused("captions", "set", store, "p", text)
    row = json.dumps({"title": text}, ensure_ascii=False)
    assert captioner("ingest", "pins", store, "-", stdin=row).exit_code == 1
    ((content,),) = rows(store, "SELECT content FROM rejected_rows")
    assert "[redacted]" in content
    assert not any(part in content for part in ("123", "SHOP", "shop"))
