"""Everything that a store knows about one pin."""

from __future__ import annotations

from typing import Any

from ..common.redact import redact_credentials
from .stored import NO_PICTURE, OF_PIN


async def about_pin(store: Any, index: Any, pin_id: str) -> dict[str, Any]:
    """The results of the queries `OF_PIN` by their names, each a list of rows; "pin" is one row as a dict.

    "no_picture" says why the pin has no picture. `store` and `index` are Datasette's databases.
    """
    parts: dict[str, Any] = {}
    for name, sql in OF_PIN.items():
        parts[name] = (await store.execute(sql, {"pin_id": pin_id})).rows
    parts["pin"] = dict(parts["pin"][0]) if parts["pin"] else {}
    parts["pin"]["image"] = redact_credentials(parts["pin"].get("image") or "")
    reasons = (await index.execute(NO_PICTURE, [pin_id])).rows
    return parts | {"no_picture": reasons[0][0] if reasons else None}
