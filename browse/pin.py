"""Everything that a store knows of one pin."""

from __future__ import annotations

from typing import Any

from ..common.redact import redact_credentials
from ..store import rules

_PARTS = {
    "pin": "SELECT * FROM pins WHERE pin_id = :pin_id",
    "captions": f"""SELECT c.*, r.model, r.prompt, r.dtype, {rules.is_stale()} AS is_stale,
            c.recipe_id IS (SELECT e.caption_recipe FROM enriched_features e WHERE e.pin_id = :pin_id) AS is_current
        FROM captions c JOIN pins p USING (pin_id) LEFT JOIN recipes r USING (recipe_id) WHERE c.pin_id = :pin_id ORDER BY is_current DESC, c.updated_at DESC, c.recipe_id""",
    "titles": "SELECT * FROM board_title_ranks WHERE pin_id = :pin_id ORDER BY rank",
    "queries": "SELECT * FROM engaged_query_ranks WHERE pin_id = :pin_id ORDER BY rank",
    "ratings": """SELECT r.*, i.caption, i.other_caption, s.swapped FROM ratings r JOIN sheet_rows s USING (item_id)
        JOIN sample_items i ON i.sample_id = s.sample_id AND i.item = s.item WHERE r.pin_id = :pin_id ORDER BY r.answered_at, r.item_id LIMIT 200""",
    "embeddings": "SELECT name, dim FROM embeddings WHERE pin_id = :pin_id ORDER BY name",
}


async def known(store: Any, index: Any, pin_id: str) -> dict[str, Any]:
    """The parts above, each a list of rows but "pin"; "no_picture" says why there is none.

    `store` and `index` are Datasette's databases.
    """
    found = {name: (await store.execute(sql, {"pin_id": pin_id})).rows for name, sql in _PARTS.items()}
    found["pin"] = dict(found["pin"][0]) if found["pin"] else {}
    found["pin"]["image"] = redact_credentials(found["pin"].get("image") or "")
    reason = (await index.execute("SELECT reason FROM no_picture WHERE pin_id = ?", [pin_id])).rows
    return found | {"no_picture": reason[0][0] if reason else None}
