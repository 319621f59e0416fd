"""The columns of features that a trainer reads of a pin."""

from __future__ import annotations

# What a trainer reads of a pin, in this order. Lists are never null: a pin without titles has an empty one.
LISTS = ("board_titles", "board_title_counts", "engaged_queries", "engaged_query_scores")
# How the published OmniSearchSage code names the text fields (FACTS, section 1).
OMNISEARCHSAGE = {"board_titles": "board_title", "engaged_queries": "navboost", "caption": "image_caption"}
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
