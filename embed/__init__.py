"""Trains a search embedding on an export: a query tower and an item tower.

The design follows OmniSearchSage (Agarwal et al., WWW '24 Companion). docs/embed.md describes it.
"""
