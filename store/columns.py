"""The columns of a pin that a trainer reads, in an export and in EnrichedFeatures."""

from __future__ import annotations

# A pin without titles or queries has empty lists here, never null.
LISTS = ("board_titles", "board_title_counts", "engaged_queries", "engaged_query_scores")
COLUMNS = (
    "pin_id",
    "kind",
    "title",
    "description",
    "caption",
    "caption_recipe",
    *LISTS,
    "image_sha256",
    "category",
    "locale",
)
# What the published code of OmniSearchSage calls these columns (FACTS, section 1).
OMNISEARCHSAGE = {"board_titles": "board_title", "engaged_queries": "navboost", "caption": "image_caption"}
