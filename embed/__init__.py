"""The reader of the store: a query tower and an item tower trained on an export, after OmniSearchSage
(Agarwal et al., WWW '24 Companion).
"""
